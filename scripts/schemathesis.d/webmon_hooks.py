"""What the tool must know of webmon: checks may go to this machine only."""

import schemathesis


@schemathesis.hook
def map_body(context, body):
    operation = context.operation
    if operation is not None and operation.path == "/check" and isinstance(body, dict):
        # Nobody listens there: every check ends at once, and nothing leaves this machine.
        if isinstance(body.get("url"), str) and body["url"].startswith("http"):
            body["url"] = "http://127.0.0.1:1/"
        if isinstance(body.get("proxy"), str):
            body["proxy"] = "http://127.0.0.1:1"
        body.pop("retries", None)
    return body
