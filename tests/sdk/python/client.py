"""The official Python SDK, driven by tests/official_sdks.rs.

Each line of standard input is a command, each line of standard output something that happened, both JSON:

    {"id": 1, "do": "subscribe", "subscription": {..}}   {"id": 1, "done": null}, then {"id": 1, "message": {..}}
    {"id": 2, "do": "unsubscribe", "of": 1}              {"id": 2, "done": true}
    {"id": 3, "do": "info", "method": "user_fills", "arguments": ["0x.."]}   {"id": 3, "done": [..]}
    {"id": 4, "do": "ping"}                              {"id": 4, "done": null}, then {"frame": {..}}

What fails says `{"id": .., "failed": ".."}`. Frames that the SDK keeps to itself (acknowledgements, errors, pongs) are
told as `{"frame": {..}}`, from its log. Only what the SDK offers its users is used, but for the ping, which it
sends by itself each 50 seconds.
"""

import json
import logging
import sys
import threading

from hyperliquid.info import Info

TOLD = ("subscriptionResponse", "error", "pong")
FRAME = "on_message "

saying = threading.Lock()


def say(what):
    with saying:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()


class Frames(logging.Handler):
    """Hears what the SDK logs of the frames that it gets."""

    def emit(self, record):
        text = record.getMessage()
        if text.startswith(FRAME):
            frame = json.loads(text[len(FRAME) :])
            if frame["channel"] in TOLD:
                say({"frame": frame})


def carry_out(info, subscriptions, command):
    what, number = command["do"], command["id"]
    if what == "subscribe":
        # The SDK keeps the object, and may write into it.
        subscription = dict(command["subscription"])
        callback = lambda message: say({"id": number, "message": message})
        subscriptions[number] = (subscription, info.subscribe(subscription, callback))
        return None
    if what == "unsubscribe":
        return info.unsubscribe(*subscriptions.pop(command["of"]))
    if what == "info":
        return getattr(info, command["method"])(*command["arguments"])
    if what == "ping":
        return info.ws_manager.ws.send(json.dumps({"method": "ping"}))
    raise ValueError(f"no such command: {what}")


def main():
    base_url, options = sys.argv[1], json.loads(sys.argv[2])
    logging.getLogger().setLevel(logging.DEBUG)
    logging.getLogger().addHandler(Frames())
    info = Info(base_url, **options)
    say({"id": 0, "done": None})
    subscriptions = {}
    for line in sys.stdin:
        command = json.loads(line)
        try:
            say({"id": command["id"], "done": carry_out(info, subscriptions, command)})
        except Exception as error:  # Whatever the SDK raises is what its user would meet.
            say({"id": command["id"], "failed": f"{type(error).__name__}: {error}"})
    if info.ws_manager is not None:
        info.disconnect_websocket()


main()
