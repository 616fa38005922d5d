"""CPU time of a page's frames, from Chromium's own trace of its main thread."""

from bisect import bisect_right
from typing import Any

from playwright.sync_api import CDPSession, Page

CATEGORIES = "-*,toplevel,devtools.timeline,disabled-by-default-devtools.timeline,devtools.timeline.frame"
Event = dict[str, Any]


def frame_times(page: Page, session: CDPSession, milliseconds: float) -> list[float]:
    """Milliseconds of the main thread's CPU time in each frame from now on.

    From the beginning of a frame to that of the next one, whatever the thread does. Time in which the machine does
    something else does not count.
    """
    events = _trace(page, session, milliseconds)
    main = next((event["pid"], event["tid"]) for event in events if event["name"] == "UpdateLayoutTree")
    mine = [event for event in events if (event["pid"], event["tid"]) == main]
    begins = sorted(event["ts"] for event in mine if event["name"] == "AnimationFrame" and event["ph"] == "b")
    found = [0.0] * len(begins)
    for event in mine:
        frame = bisect_right(begins, event["ts"] + 1000) - 1  # a frame begins within its task
        if event["name"] == "RunTask" and event["ph"] == "X" and frame >= 0:
            found[frame] += event.get("tdur", 0) / 1000
    return found[:-1]


def _trace(page: Page, session: CDPSession, milliseconds: float) -> list[Event]:
    events: list[Event] = []
    ended: list[Event] = []
    session.on("Tracing.dataCollected", lambda data: events.extend(data["value"]))
    session.on("Tracing.tracingComplete", lambda data: ended.append(data))
    session.send("Tracing.start", {"transferMode": "ReportEvents", "categories": CATEGORIES})
    page.wait_for_timeout(milliseconds)
    session.send("Tracing.end")
    while not ended:
        page.wait_for_timeout(20)
    return events
