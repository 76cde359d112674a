//! Whether somebody knows the database's password.

use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::errors::{ErrorKind, Failure};
use super::session::{Connector, Session};
use super::{Store, StoreError};

impl Store {
    /// Whether `password` is the configured role's password, for commands that destroy.
    ///
    /// A fresh connection is opened with exactly this password. That alone proves nothing where
    /// the server takes anything (`trust`, or a client certificate instead). So with a
    /// configured password the given one must also equal it, compared in constant time; without
    /// one, the server must refuse another password.
    ///
    /// # Errors
    /// An outage when the database can't be asked; of kind [`ErrorKind::Configuration`] when it
    /// takes any password and none is configured to compare with.
    pub fn verify_password(&self, password: &SecretString) -> Result<bool, StoreError> {
        let configured = self.inner.options().password.as_ref();
        if configured.is_some_and(|configured| !is_same(configured, password)) {
            return Ok(false);
        }
        if !self.takes(password)? {
            return Ok(false);
        }
        if configured.is_none() {
            let other = SecretString::from(format!("{}-is-not-it", password.expose_secret()));
            if self.takes(&other)? {
                let cause = "the server takes any password, and none is configured to compare with";
                let failure = Failure::Said(ErrorKind::Configuration, cause.to_owned());
                return Err(self.inner.error("checking the password", &failure));
            }
        }
        Ok(true)
    }

    /// Whether the server lets `password` in.
    fn takes(&self, password: &SecretString) -> Result<bool, StoreError> {
        let connector: Connector = self.inner.connector().with_password(password);
        match Session::open_with(&self.inner, connector) {
            Ok(_) => Ok(true),
            // 28P01 and 28000: refused at the door.
            Err(failure) if failure.code().is_some_and(|code| code.code().starts_with("28")) => {
                Ok(false)
            }
            Err(failure) => Err(self.inner.error("checking the password", &failure)),
        }
    }
}

fn is_same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret().as_bytes().ct_eq(other.expose_secret().as_bytes()).into()
}
