#!/usr/bin/env python3
"""Do damaged files and senseless options end in one documented line? python .ci/fuzz.py [SHARE]

Some thousand mutants of each format that diffnb reads and of the options of its commands, the same
ones every time. A mutant may be accepted or refused. It fails if it raises anything else than a
ValueError, FileNotFoundError or OSError of one line (a command: exit code 2 and one line), takes
longer than LIMIT seconds, or if the process has needed more than MEMORY bytes above its start. At
last a reader without any care must fail, or the mutants could find nothing. SHARE (1 by default) is
the share of the mutants that are tried.
"""
import collections, contextlib, copy, faulthandler, gzip, io, json, os, random, resource, signal
import struct, sys, tempfile, time, warnings, zlib
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from diffnb import Denoiser, UNet, cosine_schedule, edm_schedule, flow_schedule
from diffnb import from_diffusers, to_diffusers
from diffnb import cli, load, save
from diffnb.checkpoint import load_training
from diffnb.data import FileData, TensorData, load_data, read_header, read_idx, read_image
from diffnb.files import read_array
from diffnb.metrics import describe, load_features, pixel_features, read_array_file, save_features
from diffnb.onnx import read_onnx, to_onnx
from diffnb.pretrained import adm_names, from_guided_diffusion, read_weights
from diffnb.train import read_log

LIMIT, MEMORY = 10, 1_500_000_000           # seconds for one mutant; bytes for the whole
DOCUMENTED = ValueError, OSError, FloatingPointError
UNDOCUMENTED = UnicodeError, json.JSONDecodeError         # though they are ValueErrors
NUMBERS = [0, 1, -1, 2**31, 2**32 - 1, 2**63 - 1, 10**7, 10**12, 10**30, 1e308, -1e-308, .5]
VALUES = [*NUMBERS, None, True, False, '', 'abc', '5', 'é☃', '../..', [], [0], ['a'], [[]], {},
          {'a': 1}, [1]*1000, [10**9, 10**9]]
WORDS = ['0', '-1', '1', '2', '3', '10000000', '1e30', '1'*31, 'nan', 'inf', '-inf', '1e-320', '',
         ' ', 'x', '1,,2', '1,a', '-1,0', '9,9', 'é☃', '~nosuchuser/a', '/dev/null/a', '/proc/self',
         '.', 'a'*300, 'none', 'True', '.5', "';--"]

class Hang(BaseException): "More than LIMIT seconds."
def too_long(*_): raise Hang

def bytes_mutant(rng, raw:bytes) -> bytes:
    "Bits turned, a piece cut out, doubled, emptied or made extreme, the end lost."
    raw = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at, n = rng.randrange(max(1, len(raw))), rng.choice((1, 2, 4, 8, 30))
        how = rng.randrange(7)
        if how == 0 and raw: raw[at] ^= 1 << rng.randrange(8)
        elif how == 1: raw[at:at + n] = bytes(n)
        elif how == 2: raw[at:at + n] = b'\xff'*n
        elif how == 3: del raw[at:at + n]
        elif how == 4: raw[at:at] = raw[at:at + n]
        elif how == 5: raw = raw[:at]
        else: raw[at:at + n] = rng.randbytes(n)
    return bytes(raw)

def json_mutant(rng, tree):
    "The same settings with one or two nodes replaced, lost or nested."
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 2))):
        node = tree
        while True:
            keys = list(node) if isinstance(node, dict) else range(len(node))
            if not keys: break
            key = rng.choice(list(keys))
            inner = node[key]
            if isinstance(inner, (dict, list)) and inner and rng.random() < .8: node = inner
            else:
                if rng.random() < .1: del node[key]
                else: node[key] = copy.deepcopy(rng.choice(VALUES))
                break
    return tree

def json_text(rng, tree) -> str:
    "A mutant of settings as text; once in a while the text itself is damaged, or nested deep."
    if rng.random() < .1: return bytes_mutant(rng, json.dumps(tree).encode()).decode('latin1')
    text = json.dumps(json_mutant(rng, tree))
    if rng.random() < .03: return text.replace(':', ':' + '['*100_000, 1)
    return text

def tensors_mutant(rng, path):
    "A function that writes a mutant of a safetensors file: bytes, its JSON, or its tensors."
    tensors = load_file(path)
    with safe_open(str(path), 'pt') as f: (key, text), = f.metadata().items()
    meta = json.loads(text)
    def write(out):
        how, mine, text = rng.randrange(4), dict(tensors), json.dumps(meta)
        if how == 0: return out.write_bytes(bytes_mutant(rng, path.read_bytes()))
        if how == 1:
            name = rng.choice(list(mine))
            change = rng.randrange(5)
            if change == 0: del mine[name]
            elif change == 1: mine[name] = mine[name].flatten()[:1].clone()
            elif change == 2: mine[name] = (mine[name]*float('nan')).contiguous()
            elif change == 3: mine[name] = mine[name].to(rng.choice((torch.int8, torch.float16)))
            else: mine[name + 'x'] = mine[name].clone()
        else: text = json_text(rng, meta)
        save_file(mine, out, {key: text})
    return write

def deep_png(path, pixels):
    "Colours of 16 bits [H, W, 3], which Pillow does not write."
    def chunk(kind, text):
        check = struct.pack('>I', zlib.crc32(kind + text))
        return struct.pack('>I', len(text)) + kind + text + check
    head = struct.pack('>IIBBBBB', pixels.shape[1], pixels.shape[0], 16, 2, 0, 0, 0)
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in pixels)
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head)
                     + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))

def raw_mutant(rng, path):
    raw = path.read_bytes()
    return lambda out: out.write_bytes(bytes_mutant(rng, raw))

class Fuzz:
    def __init__(self, folder, share):
        self.folder, self.share, self.rng = folder, share, random.Random(0)
        self.found, self.faults = {}, []

    def run(self, name, n, make, use, named=''):
        "n mutants: make(i) makes one, use(it) reads it; an error has to name the file."
        counts, started = collections.Counter(), time.perf_counter()
        for i in range(max(1, int(n*self.share))):
            what = make(i)
            signal.setitimer(signal.ITIMER_REAL, LIMIT)
            faulthandler.dump_traceback_later(3*LIMIT, exit=True)       # C code that never returns
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter('ignore')
                    use(what)
                counts['accepted'] += 1
            except DOCUMENTED as e:
                if isinstance(e, UNDOCUMENTED): self.fault(name, i, f"undocumented: {e!r:.300}")
                counts[type(e).__name__] += 1
                if '\n' in str(e).strip(): self.fault(name, i, f"more than one line: {e!r:.300}")
                if named and named not in str(e): self.fault(name, i, f"names no file: {e!r:.300}")
            except (Exception, Hang) as e:
                self.fault(name, i, f"{type(e).__name__}: {e!s:.300} {what if not named else ''}")
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                faulthandler.cancel_dump_traceback_later()
        self.found[name] = counts
        print(f"{name:24}{sum(counts.values()):6} mutants in {time.perf_counter() - started:5.1f} s"
              f"  {dict(counts)}", flush=True)

    def fault(self, name, i, text): self.faults.append(f"{name}, mutant {i}: {text}")

    def files(self, name, n, mutant, good, use):
        "n mutants of a good file."
        use(good)
        write, out = mutant(self.rng, good), self.folder/f'mutant{good.suffix}'
        def make(i):
            write(out)
            return out
        self.run(name, n, make, use, out.name)

    def options(self, command, base, n, rng):
        "n command lines: base, and one or two options with words that make no sense."
        # compiling takes a minute, and works
        left = 'run', 'out', 'compile'
        options = [o for o in cli.all_options(command) if o.name not in left]
        run = cli.console_script(command)
        def make(i):
            words = base()
            for _ in range(rng.choice((1, 1, 2)) if i else 0):      # the first is base itself
                o = rng.choice(options)
                value = '' if o.kind == 'bool' else f'={rng.choice(WORDS)}'
                words.append(f'--{o.name}{value}')
            return words
        def use(words):
            said, told = io.StringIO(), io.StringIO()
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(told):
                try: run(words)
                except SystemExit as e: code = e.code
                else: return
            last = said.getvalue().strip().split('\r')[-1].splitlines()
            if len(words) == len(base()): raise RuntimeError(f"{words} should work: {last}")
            if code == 2 and last and ': error: ' in last[-1]: raise ValueError(last[-1])
            raise RuntimeError(f"{words}: exit code {code}, {said.getvalue()!r:.300}")
        self.run(command.__name__, n, make, use)

def stored_model(folder) -> tuple:
    "A small model with labels, and its training checkpoint."
    torch.manual_seed(0)
    net = UNet(channels=8, mults=(1,), groups=2, num_classes=3)
    model = Denoiser(net, cosine_schedule(20))
    for p in model.parameters(): torch.nn.init.normal_(p, std=.1)
    data = dict(name='x', shape=[1, 8, 8], levels=17, classes=['a', 'b', 'c'], n=5,
                scale=[[.5], [2.]], label_dim=None)
    optimizer = torch.optim.AdamW(model.parameters())
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    tables, config = dict(r=torch.ones(3)), dict(lr=.1)
    save(folder/'a.safetensors', model, copy.deepcopy(net), optimizer, tables, 5, config, data)
    return model, folder/'a.safetensors'

def files(fuzz):
    folder, rng = fuzz.folder, fuzz.rng
    model, path = stored_model(folder)
    fuzz.files('checkpoint: load', 2000, tensors_mutant, path, load)
    fuzz.files('checkpoint: resume', 1000, tensors_mutant, path, load_training)
    scaled = TensorData('f', torch.rand(30, 2), None, scaling='range')
    save_features(folder/'f.safetensors', describe(scaled, pixel_features()))
    fuzz.files('reference statistics', 1000, tensors_mutant, folder/'f.safetensors', load_features)

    # published weights
    torch.save(model.net.state_dict(), folder/'a.pt')
    fuzz.files('.pt', 1500, raw_mutant, folder/'a.pt', read_weights)
    net = UNet(channels=32, mults=(1,), groups=32)
    theirs = {adm_names(net)[k][0]: v for k, v in net.state_dict().items()}
    torch.save(theirs, folder/'b.pt', _use_new_zipfile_serialization=False)
    def guided(p): return from_guided_diffusion(p, image_size=8)
    fuzz.files('.pt of old', 1000, raw_mutant, folder/'b.pt', guided)
    pipelines = dict(chain=model, halved=Denoiser(model.net, model.sched, 'edm'),
                     flow=Denoiser(UNet(num_classes=3), flow_schedule(2.), 'flow'),
                     edm=Denoiser(model.net, edm_schedule(), 'edm', clip=(-1, 1)))
    for name, each in pipelines.items():
        each.about = dict(shape=[1, 8, 8], name='x', classes=['a', 'b', 'c'], label_dropout=.1)
        to_diffusers(each, folder/name)
        names = 'unet/config.json', 'scheduler/scheduler_config.json'
        trees = {folder/name/c: json.loads((folder/name/c).read_text()) for c in names}
        def settings(i):
            for c, tree in trees.items(): c.write_text(json.dumps(tree))
            c = rng.choice([*trees])
            c.write_text(json_text(rng, trees[c]))
            return folder/name
        fuzz.run(f'diffusers folder ({name})', 400, settings, from_diffusers)

    if find_spec('onnx'):
        to_onnx(model, folder/'a.onnx', (1, 8, 8))
        fuzz.files('ONNX', 500, raw_mutant, folder/'a.onnx', read_onnx)

    # arrays, images, tables
    np.savez(folder/'a.npz', np.zeros((4, 8, 8, 1), np.uint8))
    np.savez_compressed(folder/'b.npz', np.zeros((4, 8, 8, 1), np.uint8))
    np.save(folder/'a.npy', np.zeros((4, 8)))
    def samples(p): return read_array_file(p, (1, 8, 8))
    for name in ('a.npz', 'b.npz'):
        fuzz.files(f'.npz ({name[0]})', 1000, raw_mutant, folder/name, samples)
    fuzz.files('.npy', 1000, raw_mutant, folder/'a.npy', read_array)
    # as data sets, with labels
    def examples(p):
        found = load_data(p)
        found.tensor(min(2, len(found)))
    numbers = np.random.default_rng(0).normal(size=(5, 2, 6))
    np.save(folder/'d.npy', numbers.astype('f4'))
    np.savez(folder/'d.npz', x=numbers, y=np.arange(5))
    for name in ('d.npy', 'd.npz'):
        fuzz.files(f'data {name}', 1000, raw_mutant, folder/name, examples)
    def marked(p): load_data(folder/'d.npy', labels=p)
    np.save(folder/'y.npy', np.arange(5))
    fuzz.files('labels .npy', 1000, raw_mutant, folder/'y.npy', marked)
    pixels = Image.fromarray(np.arange(12*8*3, dtype=np.uint8).reshape(12, 8, 3))
    def picture(p):
        read_header(p)
        return read_image(p, 3)
    for suffix in ('.png', '.jpg', '.gif', '.bmp', '.tif', '.webp', '.ppm'):
        pixels.save(folder/f'a{suffix}')
        fuzz.files(f'image {suffix}', 1000, raw_mutant, folder/f'a{suffix}', picture)
    deep = np.random.default_rng(0).integers(0, 65536, (12, 8, 3)).astype(np.uint16)
    deep_png(folder/'deep.png', deep)
    Image.fromarray(deep[..., 0]).save(folder/'grey.png')
    Image.fromarray(deep[..., 0]).save(folder/'grey.tif')
    Image.fromarray(deep[..., 0].astype(np.float32)).save(folder/'float.tif')
    (folder/'deep.pgm').write_bytes(b'P5 8 12 65535\n' + deep[..., 0].tobytes())
    for name in ('deep.png', 'grey.png', 'grey.tif', 'float.tif', 'deep.pgm'):
        fuzz.files(f'image {name}', 1000, raw_mutant, folder/name, picture)
    idx = b'\0\0\x08\3' + b''.join(n.to_bytes(4, 'big') for n in (5, 4, 3)) + bytes(60)
    (folder/'a').write_bytes(idx)
    (folder/'a.gz').write_bytes(gzip.compress(idx))
    for name in ('a', 'a.gz'): fuzz.files(f'idx {name}', 1000, raw_mutant, folder/name, read_idx)
    log = 'step,loss,lr,grad_norm,seconds\n20,.5,.1,1.,.3\n40,.4,.1,1.,.6\n'
    (folder/'log.csv').write_text(log)
    fuzz.files('log.csv', 1000, raw_mutant, folder/'log.csv', read_log)

def commands(fuzz):
    folder, rng = fuzz.folder, fuzz.rng
    FileData.workers = 0
    (folder/'images').mkdir()
    for i in range(40):
        pixels = rng.randbytes(16)
        Image.frombytes('L', (4, 4), pixels).save(folder/'images'/f'{i}.png')
    def train_line():
        return ['--data=images', '--steps=1', '--n_eval=0', '--channels=8', '--mults=1',
                '--batch_size=8', '--T=5', f'--out={tempfile.mkdtemp(dir=folder)}/new', '--cpu']
    first = train_line()
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        cli.train_command(first)
    run = first[7].partition('=')[2]
    fuzz.options(cli.train_cli, train_line, 1500, rng)
    line = [run, '--steps=2', '--cpu']
    fuzz.options(cli.sample_cli, lambda: [*line, '--n=3', '--out=s.npz'], 1500, rng)
    fuzz.options(cli.eval_cli, lambda: [*line, '--n=20'], 1000, rng)

def twin(fuzz):
    "Without care, the same mutants raise other things."
    def rate(p):
        with safe_open(str(p), 'pt') as f: return json.loads(f.metadata()['diffnb'])['config']['lr']
    careless = Fuzz(fuzz.folder, .1*fuzz.share)
    path = stored_model(fuzz.folder)[1]
    careless.files('twin: a careless reader', 800, tensors_mutant, path, rate)
    if not careless.faults: fuzz.fault('twin', 0, "a careless reader passes: nothing is shown")

def part(tasks, share) -> tuple:
    "Faults, mutants and bytes of memory of some tasks, in a process of their own."
    signal.signal(signal.SIGALRM, too_long)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        fuzz, before = Fuzz(Path(folder), share), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for task in tasks: task(fuzz)
        os.chdir('/')
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)*1024
    if grown > MEMORY: fuzz.fault(tasks[0].__name__, 0, f"{grown} bytes of memory")
    return fuzz.faults, sum(sum(c.values()) for c in fuzz.found.values()), grown

def main(share):
    with ProcessPoolExecutor(2, get_context('spawn')) as pool:
        parts = [pool.submit(part, tasks, share) for tasks in ((files, twin), (commands,))]
        faults, totals, grown = zip(*(p.result() for p in parts))
    faults = sum(faults, [])
    print(*faults[:40], sep='\n')
    print(f"{sum(totals)} mutants, at most {max(grown)/1e6:.0f} MB above the start, "
          f"{len(faults)} faults")
    return 1 if faults else 0

if __name__ == '__main__': sys.exit(main(float(sys.argv[1]) if sys.argv[1:] else 1.))
