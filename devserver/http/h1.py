"""HTTP/1.1 heads by h11. Bodies, limits and checks are in `framing` and `body`, the same for every parser."""

import h11

from devserver.http.codes import BAD_REQUEST
from devserver.http.exchange import Headers
from devserver.http.framing import Refused


def parse(head: bytes) -> Headers:
    """See `framing.Parser`.

    A connection of h11 serves for one head: what it would do further with the body and the
    response is done by `body` and `stream`, and made new it has no state that could get out of step.
    """
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=len(head) + 1)
    try:
        parser.receive_data(head)
        request = parser.next_event()
    except h11.RemoteProtocolError as error:
        raise Refused(error.error_status_hint, str(error)) from None
    if not isinstance(request, h11.Request):
        raise Refused(BAD_REQUEST, "malformed head")
    return list(request.headers)
