//! The OpenAPI document and the page that shows it, Swagger UI. All of it is in the program, and
//! the page may load nothing from anywhere else.

use std::io::Read;
use std::sync::LazyLock;

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use super::body::JSON;
use super::refusal::Answer;
use super::service::Call;
use super::{Problem, Request, Response};

/// What the page may load, and do. Swagger UI writes styles into its elements, and its icons are
/// in its style sheet.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                      img-src 'self' data:; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";
/// The name of an asset changes with its content.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// A file of the page.
struct Asset {
    /// With a part of its hash.
    name: String,
    content_type: &'static str,
    bytes: &'static [u8],
    is_gzip: bool,
}

static ASSETS: LazyLock<[Asset; 3]> = LazyLock::new(|| {
    let script = "text/javascript; charset=utf-8";
    let asset = |stem: &str, ending: &str, content_type, bytes: &'static [u8], is_gzip| {
        let hash: String =
            Sha256::digest(bytes).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Asset { name: format!("{stem}.{hash}.{ending}"), content_type, bytes, is_gzip }
    };
    [
        asset(
            "swagger-ui",
            "css",
            "text/css; charset=utf-8",
            include_bytes!("assets/swagger-ui.css.gz"),
            true,
        ),
        asset(
            "swagger-ui-bundle",
            "js",
            script,
            include_bytes!("assets/swagger-ui-bundle.js.gz"),
            true,
        ),
        asset("docs", "js", script, include_bytes!("assets/docs.js"), false),
    ]
});

/// `GET /openapi.json`.
pub(super) fn document(call: &Call<'_>) -> Answer {
    Ok(Response::new(200, JSON, call.api.document()))
}

/// `GET /docs`.
pub(super) fn page(_: &Call<'_>) -> Answer {
    let [style, bundle, own] = &*ASSETS;
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>webmon API</title>\n<link rel=\"icon\" href=\"data:,\">\n\
         <link rel=\"stylesheet\" href=\"/docs/{}\">\n\
         <script src=\"/docs/{}\" defer></script>\n<script src=\"/docs/{}\" defer></script>\n\
         </head>\n<body>\n<div id=\"swagger-ui\"></div>\n\
         <noscript>This page needs JavaScript; <a href=\"/openapi.json\">/openapi.json</a> is the \
         same for programs.</noscript>\n</body>\n</html>\n",
        style.name, bundle.name, own.name
    );
    let response = Response::new(200, "text/html; charset=utf-8", page);
    Ok(response.with("Content-Security-Policy", POLICY).with("Cache-Control", "no-cache"))
}

/// `GET /docs/{asset}`.
pub(super) fn asset(call: &Call<'_>) -> Answer {
    let wanted = call.part("asset");
    let asset = ASSETS.iter().find(|asset| asset.name == wanted);
    let asset = asset.ok_or_else(|| Problem::new(404, "the page has no such file"))?;
    let packed = asset.is_gzip && takes_gzip(call.request);
    let body = match asset.is_gzip && !packed {
        true => unpacked(asset.bytes)?,
        false => asset.bytes.to_vec(),
    };
    let response = Response::new(200, asset.content_type, body)
        .with("Cache-Control", FOR_EVER)
        .with("Vary", "Accept-Encoding");
    Ok(if packed { response.with("Content-Encoding", "gzip") } else { response })
}

fn unpacked(bytes: &[u8]) -> Result<Vec<u8>, Problem> {
    let mut plain = Vec::new();
    match GzDecoder::new(bytes).read_to_end(&mut plain) {
        Ok(_) => Ok(plain),
        Err(_) => Err(Problem::new(500, "a file of the page is damaged")),
    }
}

/// Whether the client says that it takes gzip.
fn takes_gzip(request: &Request) -> bool {
    request.header("accept-encoding").is_some_and(|codings| {
        codings.split(',').any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let is_none = |part: &str| {
                part.strip_prefix("q=").and_then(|q| q.parse().ok()).is_some_and(|q: f64| q <= 0.0)
            };
            (name.eq_ignore_ascii_case("gzip") || name == "*") && !parts.any(is_none)
        })
    })
}

/// `GET /`.
pub(super) fn home(_: &Call<'_>) -> Answer {
    Ok(Response::empty(302).with("Location", "/docs"))
}
