#!/usr/bin/env python3
"""Is the site whole? python site/check.py [--static] [--screenshots FOLDER] [folder]

Without a browser: every link, anchor and file that a page names exists, nothing is fetched from
elsewhere, pictures say what they show, and no directive of nbdev is left. In headless Chromium, if
there is one, every page from its file, on a screen of 1280 pixels in light and of 390 in dark: no
error, no request but of the site's own files, every formula typeset, every picture loaded, nothing
wider than the screen. Then, from a local server, the search.
"""
import argparse, functools, html.parser, http.server, json, os, re, shutil, signal, subprocess, sys
import tempfile, threading, time, urllib.parse, urllib.request
from base64 import b64decode
from pathlib import Path

class Reader(html.parser.HTMLParser):
    "What a page names and holds."
    def __init__(self, text):
        super().__init__()
        self.ids, self.math = set(), 0
        self.links, self.loads, self.images, self.words, self.silent = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if 'id' in a: self.ids.add(a['id'])
        if tag == 'a' and a.get('href'): self.links.append(a['href'])
        if tag == 'img': self.images.append(a)
        self.loads += ([a[k] for k in ('src', 'data', 'poster') if a.get(k)]
                       + ([a['href']] if tag == 'link' and a.get('href')
                          and a.get('rel') not in ('canonical', 'next', 'prev') else []))
        if 'math' in a.get('class', '').split(): self.math += 1
        if (self.silent or tag in ('pre', 'code', 'script', 'style', 'svg')
                or 'math' in a.get('class', '').split()):
            if tag not in ('img', 'br', 'input', 'link', 'meta', 'hr'): self.silent.append(tag)

    def handle_endtag(self, tag):
        if self.silent and tag in self.silent:
            while self.silent.pop() != tag: pass

    def handle_data(self, data):
        if not self.silent: self.words.append(data)

def static(site):
    "What is wrong with the files, and how many there are of what."
    pages = {p: Reader(p.read_text(encoding='utf-8')) for p in sorted(site.rglob('*.html'))}
    bad, count = [], dict(pages=len(pages), links=0, formulas=0, pictures=0)
    for path, page in pages.items():
        where = path.relative_to(site)
        for target in page.links + page.loads:
            if (re.match(r'(https?|mailto):', target) and target in page.links
                    and target not in page.loads):
                continue
            if target.startswith(('data:', 'javascript:')): continue
            if re.match(r'[a-z][a-z+.-]*:|//', target):
                bad.append(f'{where}: fetches {target}')
                continue
            file, _, anchor = target.partition('#')
            file = (path if not file
                    else (path.parent/urllib.parse.unquote(file.partition('?')[0])).resolve())
            count['links'] += 1
            if not file.is_file() or site not in file.parents:
                bad.append(f'{where}: no such file {target}')
            elif anchor and file in pages and urllib.parse.unquote(anchor) not in pages[file].ids:
                bad.append(f'{where}: no such place {target}')
        for a in page.images:
            if not (a.get('alt') or '').strip():
                bad.append(f'{where}: a picture without words, {a.get("src", "")[:80]}')
        text = ' '.join(page.words)
        bad += [f'{where}: left over: {m}'
                for m in re.findall(r'.{0,20}(?:\$|\\\(|\\\[|\\begin).{0,40}', text)]
        if re.search(r'(?m)^\s*#\s*\|\s*(exports?|hide|slow|fold|eval|default_exp|echo|output)\b',
                     re.sub('<[^>]*>', '', path.read_text(encoding='utf-8'))):
            bad.append(f'{where}: a directive is shown')
        count['formulas'] += page.math
        count['pictures'] += len(page.images)
    for p in [*site.rglob('*.css'), *site.rglob('*.js')]:
        for url in (re.findall(r'(?:url\(|@import)\s*["\']?((?:https?:)?//[^"\')\s]+)',
                               p.read_text(encoding='utf-8', errors='replace'))
                    if p.suffix == '.css' else []):
            bad.append(f'{p.relative_to(site)}: fetches {url}')
    if not pages: bad.append(f'{site}: no page')
    return bad, count

class Browser:
    "Headless Chromium, spoken to by its DevTools protocol."
    def __init__(self, binary):
        import websocket
        self.folder = tempfile.mkdtemp()
        self.process = subprocess.Popen([binary, '--headless=new', '--no-sandbox', '--disable-gpu',
                                         '--disable-dev-shm-usage', '--hide-scrollbars',
                                         '--no-first-run', '--mute-audio',
            '--disable-background-networking', '--disable-component-update', '--disable-sync',
                                         '--remote-debugging-port=0', '--remote-allow-origins=*',
                                         f'--user-data-dir={self.folder}',
            'about:blank'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port = self.wait(
                lambda: (Path(self.folder)/'DevToolsActivePort').read_text().split()[0], 240)
            tabs = self.wait(lambda: [t for t in json.load(urllib.request.urlopen(
                f'http://127.0.0.1:{port}/json/list', timeout=10)) if t['type'] == 'page'], 60)
            self.socket = websocket.create_connection(tabs[0]['webSocketDebuggerUrl'], timeout=300)
            self.number, self.events = 0, []
            for domain in ('Page', 'Runtime', 'Network', 'Log'): self(f'{domain}.enable')
        except BaseException:
            self.close()
            raise

    @staticmethod
    def wait(get, seconds):
        "The first answer that is something."
        end = time.time() + seconds
        while True:
            try:
                if answer := get(): return answer
            except (OSError, IndexError, ValueError): pass
            if time.time() > end: raise TimeoutError(f'nothing within {seconds} s')
            time.sleep(.05)

    def __call__(self, method, **params):
        self.number += 1
        self.socket.send(json.dumps(dict(id=self.number, method=method, params=params)))
        while True:
            message = json.loads(self.socket.recv())
            if message.get('id') != self.number:
                self.events.append(message)
                continue
            if 'error' in message: raise RuntimeError(f"{method}: {message['error']}")
            return message['result']

    def value(self, code):
        "The value of a JavaScript expression."
        result = self('Runtime.evaluate', expression=code, returnByValue=True, awaitPromise=True)
        if 'exceptionDetails' in result:
            raise RuntimeError(f"{code[:80]}: {result['exceptionDetails']}")
        return result['result'].get('value')

    def screen(self, width, height, theme):
        self('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1,
             mobile=False)
        self('Emulation.setEmulatedMedia',
             features=[dict(name='prefers-color-scheme', value=theme)])

    def open(self, url):
        "Load a page and wait until its formulas stand."
        self.events.clear()
        self('Page.navigate', url=url)
        self.wait(lambda: self.value("document.readyState === 'complete' && "
                                     f"location.href.startsWith({json.dumps(url)}) && "
                                     "(!document.querySelector('.math') || "
                                     "document.documentElement.dataset.typeset === 'done')"), 240)

    def complaints(self, prefix):
        "Errors, and requests that leave `prefix`, since the page was opened."
        bad = []
        for e in self.events:
            p = e.get('params', {})
            if e.get('method') == 'Runtime.exceptionThrown':
                said = p['exceptionDetails']
                text = said.get('exception', {}).get('description', said['text'])
                bad.append(f"exception: {text[:300]}")
            elif (e.get('method') == 'Runtime.consoleAPICalled'
                  and p['type'] in ('error', 'warning', 'assert')):
                bad.append(f"console: {[a.get('value') for a in p['args']]}")
            elif (e.get('method') == 'Log.entryAdded'
                  and p['entry']['level'] in ('error', 'warning')):
                bad.append(f"log: {p['entry']['text'][:200]} {p['entry'].get('url', '')}")
            elif e.get('method') == 'Network.loadingFailed' and not p.get('canceled'):
                bad.append(f"not loaded: {p['errorText']}")
            elif (e.get('method') == 'Network.requestWillBeSent'
                  and not p['request']['url'].startswith((prefix, 'data:', 'blob:'))):
                bad.append(f"request: {p['request']['url'][:200]}")
        return bad

    def picture(self, file, whole=False):
        size = self('Page.getLayoutMetrics')['cssContentSize']
        clip = (dict(clip=dict(x=0, y=0, width=size['width'], height=min(size['height'], 12000),
                               scale=1), captureBeyondViewport=True) if whole else {})
        Path(file).write_bytes(
            b64decode(self('Page.captureScreenshot', format='png', **clip)['data']))

    def close(self):
        self.process.terminate()
        try: self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

LOOK = r"""(() => {
  const all = selector => [...document.querySelectorAll(selector)];
  const code = 'pre, code, script, style, mjx-container, noscript, textarea';
  const text = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT,
    {acceptNode: n => n.parentElement.closest(code) ? 2 : 1});
  const raw = [];
  while (text.nextNode()) {
    const said = text.currentNode.data;
    if (/\$|\\\(|\\\[|\\begin\{/.test(said)) raw.push(said.trim().slice(0, 80));
  }
  const scrolls = '.table-wrapper, pre, div.math, .picture, svg, mjx-assistive-mml';
  const wide = document.documentElement.scrollWidth > innerWidth ? all('body *').filter(e =>
    e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(scrolls)).slice(0, 4).map(e =>
    e.tagName + '.' + e.className) : [];
  return {raw, wide, scroll: document.documentElement.scrollWidth, width: innerWidth,
    marked: all('.math').length,
    set: all('.math').filter(m => m.querySelector('mjx-container svg')).length,
    wrong: all('mjx-merror, [data-mml-node="merror"], .MathJax_Error').map(e =>
      e.textContent.slice(0, 80)),
    images: document.images.length,
    lost: [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src),
    background: getComputedStyle(document.body).backgroundColor};
})()"""

def bright(color):
    "How light a colour rgb(…) is, 0 to 255."
    return sum(float(v) for v in re.findall(r'[\d.]+', color)[:3]) / 3

def dynamic(site, binary, shots=None):
    "What a browser sees go wrong on any page, and what it saw."
    browser, bad, count = Browser(binary), [], dict(pages=0, formulas=0, pictures=0)
    handler = functools.partial(type('Quiet', (http.server.SimpleHTTPRequestHandler,),
                                     {'log_message': lambda *_: None}), directory=str(site))
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        for path in sorted(site.rglob('*.html')):
            name = str(path.relative_to(site))
            browser.screen(1280, 900, 'light')
            browser.open(path.as_uri())
            for width, height, theme in ((1280, 900, 'light'), (390, 844, 'light'),
                                         (390, 844, 'dark'), (1280, 900, 'dark')):
                browser.screen(width, height, theme)
                browser.value(
                    'new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))')
                seen, at = browser.value(LOOK), f'{name} at {width} px in {theme}'
                if seen['raw'] or seen['wrong'] or seen['set'] < seen['marked']:
                    bad.append(f"{at}: {seen['set']} of {seen['marked']} formulas typeset; "
                               f"{seen['wrong']} {seen['raw']}")
                if seen['lost']: bad.append(f"{at}: not shown: {seen['lost']}")
                if seen['scroll'] > width:
                    bad.append(f"{at}: {seen['scroll']} px wide: {seen['wide']}")
                if ((bright(seen['background']) < 128) != (theme == 'dark')
                        and bright(seen['background'])):
                    bad.append(f"{at}: background {seen['background']}")
                if shots:
                    browser.picture(
                        Path(shots)/f"{name.replace('/', '_')[:-5]}_{width}_{theme}.png",
                        whole=True)
            bad += [f'{name}: {c}' for c in browser.complaints(site.as_uri() + '/')]
            count['pages'] += 1
            count['formulas'] += seen['marked']
            count['pictures'] += seen['images']
        home = f'http://127.0.0.1:{server.server_address[1]}/'
        for base in (home, site.as_uri() + '/'):  # the search, from a server and from a file
            browser.open(f'{base}search.html?q=posterior')
            browser.wait(lambda: browser.value("document.querySelectorAll('#search-results "
                                               "li').length > 2"), 240)
            time.sleep(1)
            bad += [f'search: {c}' for c in browser.complaints(base)]
        browser.open(home)
        bad += [f'index.html from a server: {c}' for c in browser.complaints(home)]
    finally:
        server.shutdown()
        browser.close()
    return bad, count

def chromium():
    return (os.environ.get('CHROMIUM')
            or next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome',
                                                    'google-chrome-stable', 'chrome'))), None))

def main():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('folder', nargs='?', type=Path, default=Path('_site'))
    ap.add_argument('--static', action='store_true', help='do not look for a browser')
    ap.add_argument('--screenshots', type=Path,
                    help='a folder for a picture of each page, at both widths and in both themes')
    args, start = ap.parse_args(), time.time()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))        # the browser goes, too
    site = args.folder.resolve()
    bad, count = static(site)
    print('files: ' + ', '.join(f'{n} {k}' for k, n in count.items()))
    binary = None if args.static else chromium()
    if binary:
        if args.screenshots: args.screenshots.mkdir(parents=True, exist_ok=True)
        wrong, seen = dynamic(site, binary, args.screenshots)
        bad += wrong
        print('browser: ' + ', '.join(f'{n} {k}' for k, n in seen.items()))
        if seen['pages'] != count['pages']:
            bad.append(f"the browser saw {seen['pages']} of {count['pages']} pages")
    else: print('browser: skipped, ' + ('as asked' if args.static else 'no chromium found'))
    print('\n'.join(bad))
    print(f'{len(bad)} faults, {time.time() - start:.0f} s')
    sys.exit(bool(bad))

if __name__ == '__main__': main()
