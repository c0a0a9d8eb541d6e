"""A plan with a way out: what its task finds in its environment, and the relay that its tunnels go to."""

from __future__ import annotations

import dataclasses
from typing import Final

from hivemind_worker import errors
from hivemind_worker.runtime.egress import gateway, relay
from hivemind_worker.tasks import plan

Gateway = gateway.Gateway
Relay = relay.Relay
Traffic = relay.Traffic

PORT: Final = 3128
"""On the loopback of the capsule, which is the capsule's own: nothing of the task runs before it is taken."""

CERTIFICATES: Final = ".hivemind/certificates.pem"
"""Where a task finds the certificates of this site, in its workspace."""

_PROXY: Final = f"http://127.0.0.1:{PORT}"
_VARIABLES: Final = {
    **dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"), _PROXY),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1,::1"),
}
_TRUST: Final = (
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE"),
    *("NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO"),
)


def prepare(
    way: gateway.Gateway | None, asked: plan.RunPlan, note: relay.Note
) -> tuple[plan.RunPlan, relay.Relay | None]:
    """What is to be run, and the relay for its tunnels, where it asks for egress; its own variables win.

    Raises errors.IsolationMissing where this node has no way out to give.
    """
    if asked.network is plan.Network.NONE:
        return asked, None
    if way is None:
        raise errors.IsolationMissing("this node gives no task a network: its owner has not allowed egress")
    files, variables = asked.files, dict(_VARIABLES)
    if way.terms.certificates and all(file.path != CERTIFICATES for file in files):
        files = (*files, plan.InputFile(CERTIFICATES, content=way.terms.certificates))
        variables |= dict.fromkeys(_TRUST, f"{plan.WORKSPACE}/{CERTIFICATES}")
    with_way = dataclasses.replace(asked, files=files, environment={**variables, **asked.environment})
    return with_way, relay.Relay(way, asked.task_id, note)
