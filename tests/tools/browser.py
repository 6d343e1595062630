#!/usr/bin/env python3
"""Drives a headless Chromium for the tests: one JSON command per line in, one JSON answer out.

It speaks the DevTools protocol over a pipe, so it needs Chromium and Python's own library only.

  {"do": "open", "who": "anna", "url": "http://…"}     a page in the browser of its own that is anna's
  {"do": "click", "who": "anna", "text": "Allow as x"} clicks the link or button with that text
  {"do": "eval", "who": "anna", "js": "…"}             what a script says
  {"do": "wait", "who": "anna", "text": "…"}           waits for a page with that text, however it comes
  {"do": "cookies", "who": "anna"}                     every cookie, HttpOnly ones too
  {"do": "script", "who": "anna", "on": false}         pages run no script from now on
  {"do": "width", "who": "anna", "pixels": 320}        a window as narrow as a telephone
  {"do": "scheme", "who": "anna", "dark": true}        as a reader who wants it dark
  {"do": "key", "who": "anna", "key": "Tab"}           presses a key
  {"do": "picture", "who": "anna", "path": "…"}        the whole page as it is seen, as a WebP file
"tab": "b" with any of them names another tab of the same browser.
"""

import base64
import json
import os
import subprocess
import sys
import tempfile
import time

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-proxy-server", "--host-resolver-rules=MAP *.test 127.0.0.1", "--remote-debugging-pipe",
]


class Chromium:
    def __init__(self, program, profile):
        # Chromium reads commands from descriptor 3 and writes answers to 4.
        to_read, self.out = os.pipe()
        self.input, to_write = os.pipe()

        def arrange():
            one, two = os.dup(to_read), os.dup(to_write)
            os.dup2(one, 3)
            os.dup2(two, 4)

        self.process = subprocess.Popen(
            [program, f"--user-data-dir={profile}", *FLAGS, "about:blank"],
            preexec_fn=arrange, close_fds=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        self.rest, self.number, self.events = b"", 0, []

    def receive(self):
        while b"\0" not in self.rest:
            chunk = os.read(self.input, 1 << 16)
            if not chunk:
                raise RuntimeError("Chromium ended")
            self.rest += chunk
        text, self.rest = self.rest.split(b"\0", 1)
        return json.loads(text)

    def call(self, method, session=None, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def wait(self, session, method):
        while True:
            for event in self.events:
                if event.get("sessionId") == session and event.get("method") == method:
                    self.events.remove(event)
                    return event["params"]
            self.events.append(self.receive())

    def forget(self, session, method):
        self.events = [event for event in self.events
                       if (event.get("sessionId"), event.get("method")) != (session, method)]


class Driver:
    def __init__(self, chromium):
        self.chromium, self.people, self.tabs = chromium, {}, {}

    def tab(self, command):
        key = (command["who"], command.get("tab", "a"))
        if key in self.tabs:
            return self.tabs[key]
        call = self.chromium.call
        if key[0] not in self.people:
            self.people[key[0]] = call("Target.createBrowserContext")["browserContextId"]
        target = call("Target.createTarget", url="about:blank", browserContextId=self.people[key[0]])
        session = call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ["Page", "Network", "Runtime", "Log"]:
            call(f"{domain}.enable", session)
        self.tabs[key] = session
        return session

    def evaluate(self, session, script):
        result = self.chromium.call("Runtime.evaluate", session, expression=script,
                                    returnByValue=True, awaitPromise=True, userGesture=True)
        if "exceptionDetails" in result:
            raise RuntimeError(str(result["exceptionDetails"]))
        return result["result"].get("value")

    def look(self, session):
        """What the tab shows now, and how its document came."""
        document, messages = {}, []
        for event in self.chromium.events:
            if event.get("sessionId") != session:
                continue
            parameters = event.get("params", {})
            if event["method"] == "Network.responseReceived" and parameters["type"] == "Document":
                document = parameters["response"]
            if event["method"] == "Log.entryAdded":
                messages.append(parameters["entry"]["text"])
        page = self.evaluate(session, "({url: location.href, title: document.title, text: "
                             "document.body ? document.body.innerText : '', cookies: "
                             "(() => { try { return "
                             "document.cookie } catch { return '' } })()})")
        return {**page, "status": document.get("status"), "messages": messages,
                "headers": document.get("headers", {})}

    def go(self, session, action):
        chromium = self.chromium
        for method in ["Page.loadEventFired", "Network.responseReceived", "Log.entryAdded"]:
            chromium.forget(session, method)
        action()
        chromium.wait(session, "Page.loadEventFired")
        return self.look(session)

    def run(self, command):
        session, call = self.tab(command), self.chromium.call
        match command["do"]:
            case "open":
                return self.go(session, lambda: call("Page.navigate", session, url=command["url"]))
            case "click":
                script = ("[...document.querySelectorAll('a, button')].find(one => "
                          f"one.textContent.trim() === {json.dumps(command['text'])}).click()")
                return self.go(session, lambda: self.evaluate(session, script))
            case "wait":
                until = time.monotonic() + 90
                while time.monotonic() < until:
                    try:
                        # Its load event must not be taken for that of a later page.
                        is_loaded = self.evaluate(session, "document.readyState === 'complete'")
                        page = self.look(session)
                        if is_loaded and command["text"] in page["text"]:
                            return page
                    except RuntimeError:
                        # A page that goes away at this moment.
                        pass
                    time.sleep(0.05)
                raise RuntimeError(f"no page with {command['text']}: {self.look(session)}")
            case "eval":
                return {"value": self.evaluate(session, command["js"])}
            case "script":
                call("Emulation.setScriptExecutionDisabled", session, value=not command["on"])
                return {}
            case "width":
                call("Emulation.setDeviceMetricsOverride", session, width=command["pixels"],
                     height=720, deviceScaleFactor=1, mobile=False)
                return {}
            case "scheme":
                value = "dark" if command["dark"] else "light"
                call("Emulation.setEmulatedMedia", session,
                     features=[{"name": "prefers-color-scheme", "value": value}])
                return {}
            case "picture":
                size = call("Page.getLayoutMetrics", session)["cssContentSize"]
                clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
                picture = call("Page.captureScreenshot", session, format="webp", quality=60,
                               captureBeyondViewport=True, clip=clip)
                with open(command["path"], "wb") as file:
                    file.write(base64.b64decode(picture["data"]))
                return {}
            case "key":
                for kind in ["rawKeyDown", "keyUp"]:
                    call("Input.dispatchKeyEvent", session, type=kind, key=command["key"],
                         code=command["key"], windowsVirtualKeyCode=9)
                return {}
            case "cookies":
                context = self.people[command["who"]]
                cookies = call("Storage.getCookies", browserContextId=context)["cookies"]
                return {"cookies": cookies}
        raise RuntimeError(f"what is {command['do']}?")


def main():
    program = sys.argv[1]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        chromium = Chromium(program, profile)
        driver = Driver(chromium)
        try:
            for line in sys.stdin:
                try:
                    answer = driver.run(json.loads(line))
                except (RuntimeError, KeyError) as error:
                    answer = {"error": str(error)}
                print(json.dumps(answer), flush=True)
        finally:
            chromium.process.kill()
            chromium.process.wait()


main()
