//! All routes: the one table from which requests are answered and the OpenAPI document is made.

use super::refusal::Answer;
use super::service::{self, Call};
use super::{Method, Role, changes, checking, docs, history, monitoring, state, websites};
use crate::store::SiteStatus;

/// Names that stand for a part of a path.
pub(super) const NAMES: [&str; 3] = ["website_id", "check_entry_id", "asset"];

/// Where a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    Query,
    Header,
}

/// What a parameter holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Limit,
    Id,
    Uuid,
    Time,
    Choice(&'static [&'static str]),
    SiteCursor,
    CheckCursor,
    /// Its name is enough.
    Flag,
    /// Entity tags, or `*`.
    Tags,
    /// An Idempotency-Key.
    Key,
}

#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) place: Place,
    pub(super) kind: Kind,
    pub(super) required: bool,
    pub(super) doc: &'static str,
}

/// A body that a request has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Body {
    /// Its schema.
    pub(super) schema: &'static str,
    /// Content types that are taken.
    pub(super) types: &'static [&'static str],
}

/// A good answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Good {
    pub(super) status: u16,
    pub(super) doc: &'static str,
    /// Content type, and for JSON the name of the schema; empty without a body.
    pub(super) content: (&'static str, &'static str),
    /// Headers that it always has.
    pub(super) headers: &'static [&'static str],
}

/// What an answer needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// This process alone, and a moment.
    Nothing,
    Database,
    /// What its handler looks after by itself.
    Other,
}

#[derive(Clone, Copy)]
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    /// What programs made from the document call it; empty: it is not in the document.
    pub(super) id: &'static str,
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    pub(super) doc: &'static str,
    /// What a caller needs; absent: everybody may.
    pub(super) role: Option<Role>,
    pub(super) parameters: &'static [&'static Parameter],
    pub(super) body: Option<Body>,
    pub(super) good: &'static [Good],
    /// Status codes of its problems, beside those that any route may have.
    pub(super) problems: &'static [u16],
    pub(super) needs: Needs,
    pub(super) handler: fn(&Call<'_>) -> Answer,
}

impl Route {
    pub(super) fn serves(&self, method: Method) -> bool {
        self.method == method || (self.method == Method::Get && method == Method::Head)
    }

    pub(super) fn parameters(&self) -> impl Iterator<Item = &'static Parameter> {
        self.parameters.iter().copied()
    }
}

const fn parameter(name: &'static str, place: Place, kind: Kind, doc: &'static str) -> Parameter {
    Parameter { name, place, kind, required: matches!(place, Place::Path), doc }
}

const fn query(name: &'static str, kind: Kind, doc: &'static str) -> Parameter {
    parameter(name, Place::Query, kind, doc)
}

static WEBSITE_ID: Parameter = parameter("website_id", Place::Path, Kind::Id, "The site's key.");
static CHECK_ID: Parameter =
    parameter("check_entry_id", Place::Path, Kind::Uuid, "The check's identity.");
static ASSET: Parameter = parameter("asset", Place::Path, Kind::Text, "A file of the page.");
static LIMIT: Parameter = query("limit", Kind::Limit, "Most items of a page.");
static SITE_CURSOR: Parameter =
    query("cursor", Kind::SiteCursor, "Where to go on: `next` of the page before.");
static CHECK_CURSOR: Parameter =
    query("cursor", Kind::CheckCursor, "Where to go on: `next` of the page before.");
static KEYWORD: Parameter =
    query("keyword", Kind::Text, "A part of the name or of the URL, in any case.");
static KEYWORD_NEEDED: Parameter = Parameter {
    required: true,
    ..query("keyword", Kind::Text, "A part of the name or of the URL, in any case.")
};
static STATUS: Parameter = query(
    "status",
    Kind::Choice(&[
        SiteStatus::Active.as_str(),
        SiteStatus::Paused.as_str(),
        SiteStatus::Deleted.as_str(),
    ]),
    "Only sites of this status; without it all but the deleted ones.",
);
static URL: Parameter = query(
    "url",
    Kind::Text,
    "The sites with this URL, as it stands in them or in its normal form.",
);
static SITE: Parameter = query("website_id", Kind::Id, "The site of this key, deleted ones too.");
static FROM: Parameter = query("from", Kind::Time, "Due at this time or later.");
static TO: Parameter = query("to", Kind::Time, "Due before this time; now, unless it is said.");
static BUCKET: Parameter = query(
    "bucket",
    Kind::Choice(&["hour", "day"]),
    "What is summed up into one item; `hour`, unless it is said.",
);
static REGION: Parameter = query("region", Kind::Text, "Only checks from this region.");
static IF_MATCH: Parameter = parameter(
    "If-Match",
    Place::Header,
    Kind::Tags,
    "The ETag that was read: if somebody has changed the site since, nothing is done.",
);
static IF_NONE_MATCH: Parameter = parameter(
    "If-None-Match",
    Place::Header,
    Kind::Tags,
    "The ETag of what is known: if it still holds, the answer is 304 without a body.",
);
static IDEMPOTENCY_KEY: Parameter = parameter(
    "Idempotency-Key",
    Place::Header,
    Kind::Key,
    "A text that no other request has, of at most 255 characters. A request that is sent again with it within a day gets the answer of the first one.",
);

const JSON: &str = super::body::JSON;
const TEXT: &str = "text/plain; charset=utf-8";

const fn json(schema: &'static str, doc: &'static str) -> Good {
    Good { status: 200, doc, content: (JSON, schema), headers: &[] }
}

const fn site(doc: &'static str) -> Good {
    Good { headers: &["ETag"], ..json("Website", doc) }
}

const NO_BODY: Good = Good { status: 204, doc: "Done.", content: ("", ""), headers: &[] };
const SITE_BODY: Option<Body> = Some(Body { schema: "WebsiteInput", types: &[JSON] });
const CHANGES: [&Parameter; 2] = [&WEBSITE_ID, &IF_MATCH];

const fn route(
    method: Method,
    path: &'static str,
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    handler: fn(&Call<'_>) -> Answer,
) -> Route {
    let role = Some(if matches!(method, Method::Get) { Role::Read } else { Role::Write });
    Route {
        method,
        path,
        id,
        tag,
        summary,
        doc: "",
        role,
        parameters: &[],
        body: None,
        good: &[],
        problems: &[],
        needs: Needs::Database,
        handler,
    }
}

const fn quick(route: Route) -> Route {
    Route { needs: Needs::Nothing, ..route }
}

const fn open(route: Route) -> Route {
    Route { role: None, ..route }
}

use Method::{Delete, Get, Patch, Post, Put};

/// The tags, and what they are about.
pub(super) const TAGS: [(&str, &str); 4] = [
    ("websites", "What is watched."),
    ("history", "What was seen."),
    ("check", "One check, now."),
    ("state", "How webmon itself is."),
];

pub(super) static ROUTES: &[Route] = &[
    Route {
        parameters: &[&LIMIT, &SITE_CURSOR, &KEYWORD, &STATUS],
        good: &[json(
            "WebsiteList",
            "A page of sites, by id. With a `Link` header where there is a next page.",
        )],
        problems: &[422, 503],
        ..route(Get, "/websites", "listWebsites", "websites", "List sites", websites::list)
    },
    Route {
        doc: "A site that was deleted comes back under its id when one of its name is added.",
        parameters: &[&IDEMPOTENCY_KEY],
        body: SITE_BODY,
        good: &[Good {
            status: 201,
            headers: &["ETag", "Location"],
            ..json("Website", "The site was added.")
        }],
        problems: &[409, 422, 503],
        ..route(Post, "/websites", "addWebsite", "websites", "Add a site", changes::create)
    },
    Route {
        doc: "The site is the one with the body's `website_id`, else with its `name`, else with its `url`. What the body leaves out is left open.",
        parameters: &[&IF_MATCH],
        body: Some(Body { schema: "WebsiteReplacement", types: &[JSON] }),
        good: &[site("The site as it is now.")],
        problems: &[404, 409, 412, 422, 503],
        ..route(
            Put,
            "/websites",
            "replaceWebsiteOfBody",
            "websites",
            "Replace the site that the body names",
            changes::replace_of_body,
        )
    },
    Route {
        doc: "The same as `/websites?keyword=`.",
        parameters: &[&KEYWORD_NEEDED, &LIMIT, &SITE_CURSOR, &STATUS],
        good: &[json("WebsiteList", "A page of the sites that were found, by id.")],
        problems: &[422, 503],
        ..route(
            Get,
            "/website",
            "findWebsites",
            "websites",
            "Find sites by a part of name or URL",
            websites::list,
        )
    },
    Route {
        parameters: &[&WEBSITE_ID, &IF_NONE_MATCH],
        good: &[
            site("The site."),
            Good {
                status: 304,
                doc: "It is what If-None-Match says.",
                content: ("", ""),
                headers: &["ETag"],
            },
        ],
        problems: &[404, 503],
        ..route(
            Get,
            "/websites/{website_id}",
            "getWebsite",
            "websites",
            "Show a site",
            websites::show,
        )
    },
    Route {
        doc: "What the body leaves out is left open.",
        parameters: &CHANGES,
        body: Some(Body { schema: "WebsiteReplacement", types: &[JSON] }),
        good: &[site("The site as it is now.")],
        problems: &[404, 409, 412, 422, 503],
        ..route(
            Put,
            "/websites/{website_id}",
            "replaceWebsite",
            "websites",
            "Replace a site",
            changes::replace,
        )
    },
    Route {
        doc: "JSON Merge Patch (RFC 7396): what the body leaves out stays, `null` leaves a key open.",
        parameters: &CHANGES,
        body: Some(Body { schema: "WebsitePatch", types: &[super::body::MERGE_PATCH, JSON] }),
        good: &[site("The site as it is now.")],
        problems: &[404, 409, 412, 422, 503],
        ..route(
            Patch,
            "/websites/{website_id}",
            "changeWebsite",
            "websites",
            "Change a part of a site",
            changes::patch,
        )
    },
    Route {
        doc: "Its checks stay and can be read by `website_id`.",
        parameters: &CHANGES,
        good: &[NO_BODY],
        problems: &[404, 412, 503],
        ..route(
            Delete,
            "/websites/{website_id}",
            "deleteWebsite",
            "websites",
            "Delete a site",
            changes::delete,
        )
    },
    Route {
        parameters: &CHANGES,
        good: &[site("The site as it is now.")],
        problems: &[404, 412, 503],
        ..route(
            Post,
            "/websites/{website_id}/pause",
            "pauseWebsite",
            "websites",
            "Check a site no more for now",
            changes::pause,
        )
    },
    Route {
        parameters: &CHANGES,
        good: &[site("The site as it is now.")],
        problems: &[404, 412, 503],
        ..route(
            Post,
            "/websites/{website_id}/resume",
            "resumeWebsite",
            "websites",
            "Check a site again",
            changes::resume,
        )
    },
    Route {
        doc: "`url` or `website_id` is needed.",
        parameters: &[&URL, &SITE, &FROM, &TO, &LIMIT, &CHECK_CURSOR],
        good: &[json(
            "CheckList",
            "A page of checks, the newest first. With a `Link` header where there is a next page.",
        )],
        problems: &[404, 422, 503],
        ..route(
            Get,
            "/monitoring",
            "listChecks",
            "history",
            "List the checks of a site",
            monitoring::list,
        )
    },
    Route {
        parameters: &[&CHECK_ID],
        good: &[json("Check", "The check.")],
        problems: &[404, 503],
        ..route(
            Get,
            "/checks/{check_entry_id}",
            "getCheck",
            "history",
            "Show a check",
            monitoring::show,
        )
    },
    Route {
        doc: "Both bounds are moved outwards to whole UTC hours. Without bounds: the last 24 hours, 7 days and 30 days.",
        parameters: &[&WEBSITE_ID, &FROM, &TO],
        good: &[json("Uptime", "Its checks, counted.")],
        problems: &[404, 422, 503],
        ..route(
            Get,
            "/websites/{website_id}/uptime",
            "getUptime",
            "history",
            "How often a site was up",
            history::uptime,
        )
    },
    Route {
        doc: "Both bounds are moved outwards to whole UTC hours, by day to whole days. Hours or days without a check are left out. Percentiles are at most 4.5 % off.",
        parameters: &[&WEBSITE_ID, &FROM, &TO, &BUCKET, &REGION],
        good: &[json("ResponseTimes", "Its checks by hour or day, the oldest first.")],
        problems: &[404, 422, 503],
        ..route(
            Get,
            "/websites/{website_id}/response-times",
            "getResponseTimes",
            "history",
            "How fast a site was",
            history::response_times,
        )
    },
    Route {
        doc: "Takes the keys of a site, of which only `url` is needed; its timeout is at most 30 s. Nothing is stored. A site that is down is a good answer, whose `outcome` says so.",
        body: Some(Body { schema: "CheckRequest", types: &[JSON] }),
        good: &[json("CheckMessage", "The check, as it would go to Kafka.")],
        problems: &[422],
        needs: Needs::Other,
        ..route(Post, "/check", "checkNow", "check", "Check a URL now", checking::check)
    },
    Route {
        good: &[json("Status", "What the tables tell.")],
        problems: &[503],
        ..route(Get, "/status", "getStatus", "state", "How webmon is doing", state::status)
    },
    quick(open(Route {
        good: &[Good { content: (TEXT, ""), ..json("", "It does.") }],
        ..route(Get, "/livez", "isAlive", "state", "Whether the process answers", state::livez)
    })),
    open(Route {
        parameters: &[&VERBOSE],
        good: &[
            Good { content: (TEXT, ""), ..json("", "It can.") },
            Good {
                status: 503,
                content: (TEXT, ""),
                ..json("", "It can't; why is told to those who may read.")
            },
        ],
        needs: Needs::Other,
        ..route(Get, "/readyz", "isReady", "state", "Whether it can do its work", state::readyz)
    }),
    quick(Route {
        good: &[Good { content: (METRICS, ""), ..json("", "In the format of OpenMetrics.") }],
        ..route(
            Get,
            "/metrics",
            "getMetrics",
            "state",
            "Metrics for Prometheus",
            service::metrics_page,
        )
    }),
    quick(open(route(Get, "/openapi.json", "", "", "", docs::document))),
    quick(open(route(Get, "/docs", "", "", "", docs::page))),
    quick(open(Route {
        parameters: &[&ASSET],
        ..route(Get, "/docs/{asset}", "", "", "", docs::asset)
    })),
    quick(open(route(Get, "/", "", "", "", docs::home))),
];

const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
static VERBOSE: Parameter =
    query("verbose", Kind::Flag, "Lists what is well, too. It needs no value.");
