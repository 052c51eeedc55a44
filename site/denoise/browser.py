"""A headless Chromium to test a page in, spoken to through its DevTools protocol
(needs websocket-client, which comes with jupyter)."""
import base64, json, os, shutil, subprocess, tempfile, time
from pathlib import Path
from urllib.request import urlopen
import websocket

class Browser:
    "Use with `with`: one tab; `errors` collects what the console reports as an error."
    def __init__(self, width=1280, height=900): # CSS pixels
        names = (os.environ.get('CHROME'), 'chromium', 'google-chrome', 'chromium-browser',
                 'chrome')
        program = next(filter(None, map(shutil.which, filter(None, names))), None)
        if program is None:
            raise FileNotFoundError(
                "no Chromium found: install one, or name it in the variable CHROME")
        self.folder, self.errors, self.count = tempfile.TemporaryDirectory(), [], 0
        self.process = subprocess.Popen([program, '--headless', '--no-sandbox', '--disable-gpu',
                                         '--disable-dev-shm-usage', '--remote-debugging-port=0',
                                         '--remote-allow-origins=*',
            f'--user-data-dir={self.folder.name}', 'about:blank'], stderr=subprocess.DEVNULL)
        port_file = Path(self.folder.name)/'DevToolsActivePort'
        for _ in range(600):
            if port_file.exists() and port_file.read_text().count('\n'): break
            time.sleep(.05)
        port = port_file.read_text().split()[0]
        tab = next(t for t in json.load(urlopen(f'http://127.0.0.1:{port}/json'))
                   if t['type'] == 'page')
        self.socket = websocket.create_connection(tab['webSocketDebuggerUrl'], timeout=120)
        for domain in ('Page', 'Runtime', 'Log'): self.call(f'{domain}.enable')
        self.size(width, height)

    def call(self, method, **params):           # of the protocol -> its result
        self.count += 1
        self.socket.send(json.dumps(dict(id=self.count, method=method, params=params)))
        answer = json.loads(self.socket.recv())
        while answer.get('id') != self.count:
            self.note(answer)
            answer = json.loads(self.socket.recv())
        if 'error' in answer: raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer['result']

    def note(self, event):                      # keep what is an error
        kind, p = event.get('method'), event.get('params', {})
        if kind == 'Runtime.exceptionThrown':
            self.errors.append(p['exceptionDetails'].get('exception', {})
                               .get('description', p['exceptionDetails']['text']))
        if kind == 'Runtime.consoleAPICalled' and p['type'] in ('error', 'assert'):
            self.errors.append(str([a.get('value') for a in p['args']]))
        if kind == 'Log.entryAdded' and p['entry']['level'] == 'error':
            self.errors.append(p['entry']['text'])

    def size(self, width, height, mobile=False):
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=height,
                  deviceScaleFactor=1, mobile=mobile)

    def media(self, **features):                # e.g. prefers_color_scheme='dark'
        self.call('Emulation.setEmulatedMedia',
                  features=[dict(name=k.replace('_', '-'), value=v) for k, v in features.items()])

    def open(self, path):                       # a file; waits until it is loaded
        self.call('Page.navigate', url=Path(path).resolve().as_uri())
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, code):  # JavaScript, an expression or a promise -> its JSON value
        r = self.call('Runtime.evaluate', expression=code, returnByValue=True, awaitPromise=True)
        if 'exceptionDetails' in r:
            raise RuntimeError(
                r['exceptionDetails'].get('exception', {}).get('description', 'error in the page'))
        return r['result'].get('value')

    def wait(self, condition, seconds=120):     # JavaScript
        end = time.time() + seconds
        while not self.run(condition):
            if time.time() > end: raise TimeoutError(f"the page did not reach: {condition}")
            time.sleep(.05)

    def press(self, key, code=None):            # 'ArrowLeft', 'Tab', ' '
        numbers = {'Tab': 9, 'Enter': 13, ' ': 32, 'End': 35, 'Home': 36, 'ArrowLeft': 37,
                   'ArrowUp': 38, 'ArrowRight': 39, 'ArrowDown': 40}
        for kind in ('rawKeyDown', 'keyUp'):
            self.call('Input.dispatchKeyEvent', type=kind, key=key, code=code
                      or ('Space' if key == ' ' else key), windowsVirtualKeyCode=numbers[key],
                      **({'text': ' '} if key == ' ' and kind == 'rawKeyDown' else {}))

    def screenshot(self, path):                 # PNG file; the whole page
        box = self.call('Page.getLayoutMetrics')['cssContentSize']
        image = self.call('Page.captureScreenshot', captureBeyondViewport=True,
                          clip=dict(x=0, y=0, width=box['width'], height=box['height'], scale=1))
        Path(path).write_bytes(base64.b64decode(image['data']))

    def __enter__(self): return self
    def __exit__(self, *_):
        self.socket.close()
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()
