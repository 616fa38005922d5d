"""The page at `/`: one file without a build step."""

import base64
import hashlib


def policy(page: str) -> str:
    """What a browser may do for the page: run its own script, ask this server, and nothing else."""
    script = page.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
