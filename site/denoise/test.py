"""Tests the page in a headless Chromium:  python test.py
(from anywhere; needs diffnb, Chromium, and websocket-client, which comes with jupyter)

Noise: its distribution. Network and chains: against torch. Page: opened from a file, by mouse and
keyboard, wide, narrow, dark. Text: what it claims, measured."""
import json, shutil, tempfile
from pathlib import Path
import torch
from browser import Browser
from export import MODEL, export
import diffnb.ddim
from diffnb.checkpoint import load, load_network
from diffnb.ddim import DDIM
from diffnb.guidance import ClassifierFreeGuidance
from diffnb.sample import sample, timesteps, trajectory

here, torch_model = Path(__file__).parent, load(MODEL)
steps_offered = [1, 2, 5, 10, 20, 50, 100]
def rows(x): return torch.tensor(x, dtype=torch.float64)
def listed(code):  # arrays of numbers as JSON
    return f"Array.from({code}, z => Array.from(z))"

# mean, variance, fourth moment and correlations of the page's Gaussian numbers,
# each within four standard errors
def test_noise(page):
    def draw(seed, index, stream): return f"gaussian({seed}, {index}, {stream})(64)"
    z = rows(
        page.run(listed(f"Array.from({{length: 4000}}, (_, i) => {draw('i >> 5', 'i & 31', 0)})")))
    n = z.numel()
    assert (z.shape == (4000, 64) and page.run(draw(7, 3, 0)) == page.run(draw(7, 3, 0))
            and page.run(f"{draw(7, 3, 0)}[0]") != page.run(f"{draw(7, 3, 1)}[0]"))
    for value, expected, variance in ((z.mean(), 0, 1), (z.var(), 1, 2), (z.pow(3).mean(), 0, 15),
                                      (z.pow(4).mean(), 3, 96)):
        assert abs(value - expected) < 4*(variance/n)**.5, (value, expected)
    # no digit and no pixel stands out
    assert (z.mean(1).abs() < 6/8).all() and (z.mean(0).abs() < 5/4000**.5).all()
    normal = torch.distributions.Normal(0, 1).cdf(z.flatten().sort().values)
    # Kolmogorov-Smirnov, one in a thousand
    assert (normal - (torch.arange(n) + .5)/n).abs().max() < 1.95/n**.5
    stream = rows(
        page.run(listed(f"Array.from({{length: 4000}}, (_, i) => {draw('i >> 5', 'i & 31', 1)})")))
    # next index, next seed, other stream, next pixel
    for a, b in ((z[1:], z[:-1]), (z[32:], z[:-32]), (z, stream), (z[:, 1:], z[:, :-1])):
        assert abs((a*b).mean()) < 4/a.numel()**.5
    print(f"noise: {n} numbers, mean {z.mean():.4f}, variance {z.var():.4f}, fourth moment "
          f"{z.pow(4).mean():.3f}")

# the stored case, and sixteen others at all kinds of times, with and without labels
def test_network(page):
    stored = page.run("selfCheck(model(shipped), shipped.reference)")
    g = torch.Generator().manual_seed(1)
    x = torch.randn(16, 1, 8, 8, generator=g)
    t = torch.tensor([1, 2, 10, 50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 990, 999, 1000])
    y = torch.randint(-1, 10, (16,), generator=g)
    ours = rows(page.run(f"{json.dumps([x.flatten(1).tolist(), t.tolist(), y.tolist()])}.slice(0, "
                         "1).flatMap(xs => xs.map((x, i) => Array.from(model(shipped).net("
                         f"Float64Array.from(x), {t.tolist()}[i], {y.tolist()}[i]))))"))
    with torch.no_grad(): theirs = torch_model.net(x, t, y=y).flatten(1)
    apart = (ours - theirs).abs().max().item()
    ms = page.run("(() => { const net = model(shipped).net, x = gaussian(0, 0, 0)(64); for (let i "
                  "= 0; i < 20; i++) net(x, 500, 1);"
                  " const began = performance.now(); for (let i = 0; i < 100; i++) net(x, 500, 1); "
                  "return (performance.now() - began) / 100; })()")
    assert (theirs.shape == ours.shape and theirs.abs().max() > 1 and stored < 1e-4
            and apart < 1e-4), (stored, apart)
    weights = sum(w.numel() for w in torch_model.net.state_dict().values())
    assert round(weights/1000) == 165  # "165 thousand numbers"
    print(f"network: differs from torch by {stored:.0e} on the stored case, {apart:.0e} on sixteen "
          f"others; {ms:.1f} ms a call")

def test_chains(page): # whole chains from the page's own x_T, and with the page's own fresh noise
    for S in steps_offered: assert page.run(f"timesteps(1000, {S})") == timesteps(1000, S)
    labels, worst = [3, 7, -1, 0], {}
    x_T = rows(page.run(listed("[0, 1, 2, 3].map(i => gaussian(5, i, 0)(64))"))).float().reshape(
        4, 1, 8, 8)
    fresh = rows(page.run(listed("[0, 1, 2, 3].map(i => { const draw = gaussian(5, i, 1); "
                                 "return Array.from({length: 100}, () => "
                                 "Array.from(draw(64))).flat(); })"))).float().reshape(
                                     4, 100, 1, 8, 8)
    randn_like = diffnb.ddim.randn_like
    try:
        for S, eta, scale in ((20, 0, 1), (20, 0, 3), (20, 1, 1), (20, .5, 2), (5, 1, 0),
                              (100, 0, 1)):
            ours = rows(page.run(listed(f"{labels}.map((label, i) => {{ const m = model(shipped), "
                                        f"draw = gaussian(5, i, 1), taus = timesteps(m.T, {S}); "
                                        "let x = gaussian(5, i, 0)(64);"
                                        f" for (let k = 0; k < {S}; k++) x = m.step(x, taus[k], "
                                        f"taus[k + 1], {{label, scale: {scale}, eta: {eta}, "
                                        f"draw}}).next; return x; }})")))
            turn = iter(range(100))
            diffnb.ddim.randn_like = lambda x, generator=None: fresh[:, next(turn)]
            theirs = sample(ClassifierFreeGuidance(torch_model, float(scale)), x_T,
                            DDIM(float(eta)), timesteps(1000, S), y=torch.tensor(labels))
            worst[S, eta, scale] = (ours - theirs.flatten(1)).abs().max().item()
    finally: diffnb.ddim.randn_like = randn_like
    assert max(worst.values()) < 1e-3, worst
    print("chains (S, η, scale): differ from diffnb by", {k: f"{v:.0e}" for k, v in worst.items()})

def text(page, name): return page.run(f"document.getElementById('{name}').textContent")
def finished(page): page.wait("document.getElementById('status').textContent !== ''")
def change(page, name, value, event='input'): # as a reader would
    page.run(f"(() => {{ const e = document.getElementById('{name}'); e.value = {value}; "
             f"e.dispatchEvent(new Event('{event}', {{bubbles: true}})); }})()")
pictures = (
    "Array.from(document.querySelectorAll('#gallery canvas'), c => "
    "Array.from(c.getContext('2d').getImageData(0, 0, 8, 8).data).filter((_, i) => i % 4 === 0))")

def test_page(page): # what a reader does
    finished(page)
    assert (text(page, 'time') == '0' and 'differ by' in text(page, 'check')
            and '400 network calls' in text(page, 'status'))
    end = page.run(pictures)
    assert len(end) == 20
    for i in (0, 7):  # the gallery shows what torch computes
        x_T = rows(page.run(listed(f"[gaussian(1, {i}, 0)(64)]"))).float().reshape(1, 1, 8, 8)
        x = sample(torch_model, x_T, DDIM(), timesteps(1000, 20), y=torch.tensor([i])).flatten()
        assert (127.5*(x + 1) - rows(end[i])).abs().max() <= .6
    page.run("document.getElementById('position').focus()")
    page.press('ArrowLeft')
    assert text(page, 'time') == '50'
    page.press('Home')
    assert text(page, 'time') == '1000' and text(page, 'noise') == '1.000'
    page.run("document.querySelector('#film canvas:nth-child(6)').dispatchEvent(new "
             "PointerEvent('pointerdown', {bubbles: true}))")
    assert (text(page, 'time') == '500'
            and page.run("document.getElementById('position').value") == '10')
    held = page.run(pictures)
    page.run("document.getElementById('expected').click()")
    assert page.run(pictures) != held
    page.run("document.getElementById('expected').click()")
    assert page.run(pictures) == held
    page.run("document.querySelectorAll('#gallery button')[8].focus()")
    page.press(' ')
    assert (page.run("Array.from(document.querySelectorAll('#gallery button'), b => "
                     "b.getAttribute('aria-pressed'))").index('true') == 8)
    page.run("document.getElementById('play').click()")
    page.wait("document.getElementById('time').textContent === '0'", 20)
    assert text(page, 'play') == 'Play'
    page.run("document.querySelector('#labels input:checked').focus()")
    page.press('ArrowRight')
    finished(page)
    assert (page.run("document.querySelector('#labels input:checked').value") == 'any'
            and page.run("document.getElementById('scale').disabled"))
    page.run("document.querySelector('#labels input[value=\"each\"]').click()")
    finished(page)
    assert page.run(pictures) == end  # one seed, one result
    change(page, 'scale', 2)
    finished(page)
    assert '800 network calls' in text(page, 'status') and page.run(pictures) != end
    change(page, 'scale', 1)
    change(page, 'steps', 0)
    finished(page)
    assert (text(page, 'steps-value') == '1'
            and page.run("document.getElementById('position').max") == '1')
    change(page, 'steps', 6)
    page.wait("document.getElementById('position').value > 3")
    change(page, 'steps', 2)
    finished(page)  # a change cancels what runs
    assert ('5 steps: 100 network calls' in text(page, 'status')
            and page.run("document.querySelectorAll('#film canvas').length") == 12)
    few = page.run(pictures)
    change(page, 'eta', 1)
    finished(page)
    assert text(page, 'eta-value') == '1 · DDPM' and page.run(pictures) != few
    change(page, 'seed', -5, 'change')
    finished(page)
    page.run("document.getElementById('fresh').click()")
    finished(page)
    assert page.run("document.getElementById('seed').value") == '1'
    names = page.run(
        "Array.from(document.querySelectorAll('input, button'), e => (e.labels?.[0]?.textContent "
        "?? '') + e.textContent + (e.getAttribute('aria-label') ?? ''))")
    assert len(names) > 35 and all(name.strip() for name in names)  # nothing without a name
    for width in (1280, 800, 390, 320):
        page.size(width, 844, width < 800)
        assert page.run("document.documentElement.scrollWidth") <= width, width
        off = page.run(
            "(() => { const box = e => e.getBoundingClientRect(), c = "
            "box(document.getElementById('cursor')), p = "
            "document.getElementById('position'), r = box(p);"
            " return c.left + c.width / 2 - (r.left + 12 + (r.width - 24) * p.value / p.max); })()")
        assert abs(off) < 1.5, (width, off)  # slider and curve show one place
    for scheme in ('light', 'dark'):         # text against its ground: 4.5 : 1, as WCAG asks
        page.media(prefers_color_scheme=scheme)
        for name in ('header p', 'figcaption span', 'dt', '.row small', '#notes li', '#play',
                     '.name.signal', '.name.noise', '#labels span', '#labels input:checked + span',
                     'a'):
            assert (c := contrast(page, name)) >= 4.5, (scheme, name, c)
    print("page: mouse, keyboard, widths 320 to 1280, contrast in light and dark: fine")

def contrast(page, selector): # of the first match, by WCAG's formula
    colors = page.run(f"(() => {{ let e = document.querySelector('{selector}'); const ink = "
                      "getComputedStyle(e).color; let ground;"
                      " while ((ground = getComputedStyle(e).backgroundColor) === 'rgba(0, 0, 0, "
                      "0)') e = e.parentElement; return [ink, ground]; })()")
    def luminance(color):
        rgb = [int(v)/255 for v in color[color.index('(') + 1:-1].split(',')[:3]]
        return sum(w*(c/12.92 if c <= .04045 else ((c + .055)/1.055)**2.4)
                   for w, c in zip((.2126, .7152, .0722), rgb))
    light, dark = sorted(map(luminance, colors), reverse=True)
    return (light + .05)/(dark + .05)

def test_claims(): # the section "What to try", by 300 chains
    n, classifier = 300, load_network('digits_classifier')[0]
    x_T = torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    taus = timesteps(1000, 20)
    nobody = torch.full((n,), -1)
    def read(x): return classifier(x, torch.ones(len(x), dtype=torch.long)).argmax(1)
    def rms(x): return x.pow(2).mean().sqrt().item()
    def share(a, b): return (a == b).double().mean().item()
    walk = dict(trajectory(torch_model, x_T, DDIM(), taus, y=nobody))
    end, half = walk[0], torch_model.p_mean_variance(walk[500], 500, y=nobody).x0
    agree = share(read(half), read(end))
    assert (.87 < agree < .96 and rms(walk[500] - end) > 3*rms(half - end)
            and abs(torch_model.sched.alpha_bar[500] - .5) < .01), agree
    sevens, seven = {}, torch.full((n,), 7)
    for scale in (0., 1., 2.):
        sevens[scale] = sample(ClassifierFreeGuidance(torch_model, scale), x_T, DDIM(), taus,
                               y=seven)
    heard = {s: share(read(x), seven) for s, x in sevens.items()}
    spread = {s: x.std(0).mean().item() for s, x in sevens.items()}
    assert (heard[0.] < .2 and .9 < heard[1.] <= heard[2.]
            and spread[2.] < spread[1.]), (heard, spread)
    y, g = torch.arange(n) % 10, torch.Generator().manual_seed(1)
    runs = [(0., S) for S in (1, 2, 10, 100)] + [(1., S) for S in (10, 20)]
    by = {(eta, S): sample(torch_model, x_T, DDIM(eta), timesteps(1000, S), g, y=y)
          for eta, S in runs}
    # the last: two digits of one label
    apart = (rms(by[0., 10] - by[0., 100]), rms(by[1., 10] - by[1., 20]),
             rms(by[0., 100] - by[0., 100].roll(10, 0)))
    assert apart[0] < .1 and apart[1] > .75*apart[2], apart
    assert (share(read(by[0., 1]), y) < .85 and share(read(by[0., 2]), y) > .9
            and by[0., 1].abs().mean() > .9)
    print(f"claims: prediction at t = 500 is the final digit in {agree:.0%} of the chains; sevens "
          "at scale 0, 1, 2: " f"{', '.join(f'{v:.0%}' for v in heard.values())}, spread "
                                f"{', '.join(f'{v:.2f}' for v in spread.values())}; "
          f"10 against 100 steps at η = 0: rms {apart[0]:.2f}; 10 against 20 at η = 1: "
          f"{apart[1]:.2f}; two digits of one label: {apart[2]:.2f}")

if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as folder, Browser() as page:
        for name in ('index.html', 'style.css', 'denoise.js'): shutil.copy(here/name, folder)
        page.open(Path(folder)/'index.html')
        assert 'weights.js is missing' in page.run("document.querySelector('main').textContent")
        page.errors.clear()  # the missing file itself
        print(f"weights.js: {export(folder).stat().st_size/1e6:.2f} MB")
        page.open(Path(folder)/'index.html')
        for test in (test_noise, test_network, test_chains, test_page): test(page)
        assert not page.errors, page.errors
    test_claims()
