//! What can be typed behind `api` and `token`.

use clap::{Args, ValueEnum};

use crate::api::Role;

#[derive(Args, Debug)]
pub(super) struct ApiArgs {
    /// Where to listen [default: api.listen]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) listen: Option<String>,
    /// Check the configuration and exit
    #[arg(long)]
    pub(super) check_config: bool,
}

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum RoleArg {
    /// Read sites and checks.
    Read,
    /// Also change sites, and check a URL now.
    Write,
    /// Everything.
    Admin,
}

impl RoleArg {
    pub(super) fn role(self) -> Role {
        match self {
            Self::Read => Role::Read,
            Self::Write => Role::Write,
            Self::Admin => Role::Admin,
        }
    }
}

#[derive(Args, Debug)]
pub(super) struct TokenArgs {
    /// Whose it is: letters, digits, '.', '_' and '-'
    pub(super) name: String,
    /// What it allows
    #[arg(long, value_enum, default_value = "read")]
    pub(super) role: RoleArg,
    /// Print one JSON object: name, role, token, sha256 and entry
    #[arg(long)]
    pub(super) json: bool,
}
