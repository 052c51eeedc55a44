#!/usr/bin/env python3
"""diffnb beside three other libraries: python benchmarks/speed.py --batch 16 --threads 2

Prints how many times as long as diffnb each of them takes, and how long the convolutions and matrix
products alone would take; --out FILE keeps every number as JSON. nbs/89_speed.ipynb explains and
tests the parts. Needs diffusers, azula and denoising-diffusion-pytorch: pip install -e '.[dev]'
"""
import argparse, json, math, os, platform, re, statistics, subprocess, sys, tempfile, time
from collections import defaultdict
from functools import partial
from itertools import product
from pathlib import Path
from typing import Callable, NamedTuple
from unittest.mock import patch
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry

clocks = dict(wall=time.perf_counter, cpu=time.process_time)


# A clock for a noisy machine

def seconds(
    call,                       # a function without arguments
    device='cpu',               # that works for it
    clock=time.perf_counter,
) -> float:
    "How long one call takes, until the device has finished."
    def wait():
        if torch.device(device).type == 'cuda': torch.cuda.synchronize()
    wait()
    start = clock()
    call()
    wait()
    return clock() - start

def interleaved(
    calls:dict,                 # {name: function without arguments}
    rounds:int=9,               # how often each is timed
    device='cpu',
    clock=time.perf_counter,
) -> dict:                      # {name: its seconds, one number a round}
    "Time functions in turns, each round in another order, after one round that does not count."
    if rounds < 1 or not calls:
        raise ValueError("there must be a call and a round at least, "
                         f"got {len(calls)} and {rounds}")
    names = list(calls)
    times = {name: [] for name in names}
    for name in names: calls[name]()
    for i in range(rounds):
        k = i % len(names)
        order = names[k:] + names[:k]
        if i//len(names) % 2: order.reverse()
        for name in order: times[name].append(seconds(calls[name], device, clock))
    return times

class Ratio(NamedTuple):
    "How many times as long: the median of the rounds, and an interval around it."
    middle: float
    low: float
    high: float
    def __str__(self): return f"{self.middle:.2f} ({self.low:.2f} to {self.high:.2f})"

def ratio(
    a:list, b:list,             # seconds of two programs, round by round
    miss:float=.05,             # how often the interval may miss the true median
) -> Ratio:
    "The median of a/b over the rounds; its interval holds for independent rounds."
    n = len(a)
    r = sorted(x/y for x, y in zip(a, b, strict=True))
    ks = [k for k in range(1, n//2 + 1) if 2*sum(math.comb(n, i) for i in range(k)) <= miss * 2**n]
    if not ks:
        raise ValueError(f"{n} rounds are too few for an interval "
                         f"that misses at most {miss:.0e} of the time")
    return Ratio(statistics.median(r), r[ks[-1] - 1], r[n - ks[-1]])


# The floor

def stand_in(tensor):
    "Shape, strides and type of a tensor, without numbers."
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device='meta')

class Work(TorchDispatchMode):
    "Within it, convolutions and matrix products are listed and their operations counted."
    def __init__(self):
        super().__init__()
        self.calls, self.flops = [], 0
    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = f(*args, **kwargs)
        if formula := flop_registry.get(f._overloadpacket):
            self.flops += formula(*args, **kwargs, out_val=out)
            self.calls.append((f, tree_map_only(torch.Tensor, stand_in, args), kwargs))
        return out

def work_of(call) -> Work:      # a function without arguments
    "What one call does in convolutions and matrix products, attention in separate steps."
    with sdpa_kernel(SDPBackend.MATH), Work() as work: call()
    return work

def replay(
    calls:list,                 # as listed by Work
    device='cpu',
) -> Callable:                  # a function without arguments
    "These operations and nothing else, on random numbers of the same shapes and layouts."
    made = {}
    def numbers(like):
        shape, stride = like.shape, like.stride()
        key = shape, stride, like.dtype
        if key not in made:
            extent = 1 + sum((n - 1)*s for n, s in zip(shape, stride))
            flat = torch.randn(extent, device=device).to(like.dtype)
            made[key] = flat.as_strided(shape, stride)
        return made[key]
    ready = [(f, tree_map_only(torch.Tensor, numbers, args), kwargs) for f, args, kwargs in calls]
    @torch.no_grad()
    def run():
        for f, args, kwargs in ready: f(*args, **kwargs)
    return run


# Where the time goes

kinds = dict(
    convolution='convolution convolution_backward',
    products='mm addmm bmm baddbmm',
    attention='_scaled_dot_product_flash_attention_for_cpu '
              '_scaled_dot_product_flash_attention_for_cpu_backward '
              '_softmax _softmax_backward_data _safe_softmax',
    normalisation='native_group_norm native_group_norm_backward linalg_vector_norm',
    activation='silu silu_backward gelu gelu_backward',
    copies='copy_ clone cat _to_copy contiguous fill_ zero_ zeros_like',
    optimizer='_fused_adamw_ _foreach_lerp_')
kind_of = {}
for kind, names in kinds.items(): kind_of |= dict.fromkeys(names.split(), kind)

class Stopwatch(TorchDispatchMode):
    "Within it, the seconds of every kind of operation are added up."
    def __init__(self, clock=time.perf_counter):
        super().__init__()
        self.seconds, self.clock = defaultdict(float), clock
    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        start = self.clock()
        out = f(*args, **(kwargs or {}))
        kind = kind_of.get(f._overloadpacket.__name__, 'other sums')
        self.seconds[kind] += self.clock() - start
        return out

def where(
    call,                       # a function without arguments
    rounds:int=5,               # after one that does not count
    clock=time.perf_counter,
) -> dict:                      # {kind: seconds}
    "Where the time of a call goes, by kind of operation: the median of some rounds, on a CPU."
    seen = []
    for _ in range(rounds + 1):
        with Stopwatch(clock) as watch: whole = seconds(call, clock=clock)
        seen.append({**watch.seconds, 'between': whole - sum(watch.seconds.values())})
    return {kind: statistics.median(s.get(kind, 0.) for s in seen[1:]) for kind in seen[-1]}


# The contestants

def parameter_count(net) -> int:
    "How many numbers a network learns."
    return sum(p.numel() for p in net.parameters())

def nearest_width(
    parameters:int,             # how many are wanted
    make,                       # width -> network
) -> int:
    "The width, a multiple of 8, whose network comes nearest in its parameters."
    with torch.device('meta'): count = {w: parameter_count(make(w)) for w in range(8, 257, 8)}
    return min(count, key=lambda w: abs(count[w] - parameters))

def prepare(
    folder:Path,                # to write to
    width:int=64,               # channels of the finest level
    size:int=32,                # side of the images
    mults=(1, 2, 2),            # channels of the levels, in units of the finest's
    attention=(16, 8),          # sides with attention
):
    "One ADM network with random weights in each library's own files."
    from azula.plugins import adm
    from denoising_diffusion_pytorch import Unet
    from diffnb.checkpoint import save
    from diffnb.pretrained import from_guided_diffusion, to_diffusers
    shape = dict(image_size=size, num_channels=width, channel_mult=list(mults),
                 attention_resolutions=list(attention), num_res_blocks=2, num_head_channels=32,
                 resblock_updown=True, use_scale_shift_norm=True)
    net = adm.make_model(learn_var=False, **shape).backbone
    for p in net.parameters():          # what starts at zero is woken up
        if not p.any(): torch.nn.init.normal_(p, std=.02)
    torch.save(net.state_dict(), folder/'azula.pt')
    (folder/'azula.json').write_text(json.dumps(dict(learn_var=False, **shape)))
    model = from_guided_diffusion(net.state_dict(), **shape)
    save(folder/'diffnb.safetensors', model)
    to_diffusers(model, folder/'diffusers', size)
    def of(w): return dict(dim=w, dim_mults=tuple(mults), channels=3)
    settings = of(nearest_width(parameter_count(net), lambda w: Unet(**of(w))))
    torch.save((settings, Unet(**settings).state_dict()), folder/'ddpm.pt')

class Contestant(NamedTuple):
    "A library's network."
    net: torch.nn.Module
    predict: Callable           # x [B,3,H,W], times in 1..1000, LongTensor [B] -> [B,3,H,W]
    draw: Callable              # number of images, steps -> images, by the library's own DDIM loop

def _diffnb(folder, size):
    from diffnb.checkpoint import load
    from diffnb.ddim import DDIM
    from diffnb.sample import sample, timesteps
    model = load(folder/'diffnb.safetensors')
    def draw(n, steps):
        x_T = torch.randn(n, 3, size, size)
        return sample(model, x_T, DDIM(), timesteps(1000, steps))
    return Contestant(model.net, model.net, draw)

def _azula(folder, size):
    from azula.plugins import adm
    from azula.sample import DDIMSampler
    denoiser = adm.make_model(**json.loads((folder/'azula.json').read_text())).eval()
    net = denoiser.backbone
    net.load_state_dict(torch.load(folder/'azula.pt', weights_only=True))
    @torch.no_grad()
    def draw(n, steps):
        sampler = DDIMSampler(denoiser, steps=steps, silent=True)
        return sampler(sampler.init((n, 3, size, size)))
    return Contestant(net, lambda x, t: net(x, t - 1), draw)

def _azula_keeping(folder, size):
    from azula.plugins.adm._src import unet
    own = _azula(folder, size)
    def keep(f, *args, use_reentrant): return f(*args)
    def predict(x, t):
        with patch.object(unet, 'checkpoint', keep): return own.predict(x, t)
    return own._replace(predict=predict)

def _diffusers(folder, size):
    from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel
    net = UNet2DModel.from_pretrained(folder/'diffusers', subfolder='unet')
    pipeline = DDIMPipeline(net, DDIMScheduler())
    pipeline.set_progress_bar_config(disable=True)
    def draw(n, steps): return pipeline(n, num_inference_steps=steps, output_type='np').images
    return Contestant(net, lambda x, t: net(x, t - 1).sample, draw)

def _ddpm(folder, size):
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from denoising_diffusion_pytorch import denoising_diffusion_pytorch as theirs
    theirs.tqdm = lambda steps, **kwargs: steps         # no bars
    settings, state = torch.load(folder/'ddpm.pt', weights_only=True)
    net = Unet(**settings)
    net.load_state_dict(state)
    def draw(n, steps):
        own = GaussianDiffusion(net, image_size=size, timesteps=1000, sampling_timesteps=steps)
        return own.sample(n)
    return Contestant(net, net, draw)

contestants = {'diffnb': _diffnb, 'azula': _azula, 'azula, keeping': _azula_keeping,
               'diffusers': _diffusers, 'denoising-diffusion-pytorch': _ddpm}


# Side by side

def step_of(c:Contestant, x, t, eps) -> Callable:       # images, times, noise
    "One training step: error, gradient, AdamW."
    c.net.requires_grad_(True)
    optimizer = torch.optim.AdamW(c.net.parameters(), 1e-4, fused=True)
    def step():
        c.net.train()
        (c.predict(x, t) - eps).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return step

def inference_of(c:Contestant, x, t) -> Callable:       # images, times
    "One forward pass, without gradients."
    @torch.no_grad()
    def forward():
        c.net.eval()
        c.predict(x, t)
    return forward

def sampling_of(c:Contestant, n:int, steps:int) -> Callable:    # images, steps
    "Images by the library's own loop."
    def draw():
        c.net.eval()
        c.draw(n, steps)
    return draw

def tasks(
    field:dict,                 # {name: Contestant}, 'diffnb' among them
    x, t,                       # images, times
    samples:int=2,              # images of a sampling run
    steps:int=3,                # its steps
    device='cpu',
) -> dict:                      # {task: {name: function without arguments}}
    "What is timed; the floors are those of 'diffnb'."
    eps = torch.randn_like(x)
    apart = {name: c for name, c in field.items() if name != 'azula, keeping'}
    made = {'inference': {name: inference_of(c, x, t) for name, c in apart.items()},
            'training step': {name: step_of(c, x, t, eps) for name, c in field.items()}}
    for calls in made.values(): calls['floor'] = replay(work_of(calls['diffnb']).calls, device)
    made['sampling'] = {name: sampling_of(c, samples, steps) for name, c in apart.items()}
    return made


# In fresh processes

def most_memory() -> int:       # bytes
    "The most that this process ever held at once."
    try: return 1024*int(re.search(r'VmHWM:\s*(\d+)', Path('/proc/self/status').read_text())[1])
    except OSError:
        import resource
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == 'darwin' else 1024*most      # bytes on macOS, else kilobytes

def report(
    name:str,                   # as in `contestants`
    folder,                     # of `prepare`
    size:int,                   # side of the images
    batch:int,                  # images at once
) -> dict:
    "Start-up and memory of a library, in a process that has done nothing else."
    c = contestants[name](Path(folder), size)
    found = dict(ready=time.process_time())
    c.draw(1, 1)
    found |= {'first image': time.process_time(), 'memory at start': most_memory()}
    c.draw(batch, 2)
    found['memory of sampling'] = most_memory()
    x, eps = torch.randn(2, batch, 3, size, size)
    step = step_of(c, x, torch.full((batch,), 500), eps)
    step()
    step()
    return found | {'memory of training': most_memory()}

def fresh(name:str, folder, size:int, batch:int, threads:int=1) -> dict:    # as in `report`
    "`report` from a fresh process."
    command = [sys.executable, __file__, f'--report={name}', f'--folder={folder}',
               f'--size={size}', f'--batch={batch}', f'--threads={threads}']
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path)),
           'OMP_NUM_THREADS': str(threads)}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode: raise RuntimeError(f"{name}: {done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])


# All together

def summary(found:dict) -> list:        # of `benchmark` -> lines
    "The ratios of a benchmark, as text."
    said = found['setting']
    lines = [f"{said['clock']} seconds, {said['threads']} threads, {said['device']}; "
             "ratios: how many times as long as diffnb, median and 95 % interval"]
    for task, times in found['seconds'].items():
        lines.append(f"{task}: diffnb {statistics.median(times['diffnb']):.3f} s")
        lines += [f"  {name:28s}{ratio(times[name], times['diffnb'])}"
                  for name in times if name != 'diffnb']
    for name, runs in found['fresh'].items():
        if not runs: continue
        middle = {k: statistics.median(r[k] for r in runs) for k in runs[0]}
        memory = ', '.join(f"{v/1e6:.0f} MB {k.removeprefix('memory ')}"
                           for k, v in middle.items() if 'memory' in k)
        lines.append(f"{name}: ready after {middle['ready']:.1f} s of the processor, "
                     f"first image after {middle['first image']:.1f} s; at most {memory}")
    return lines

def benchmark(
    width:int=64,               # channels of the finest level
    size:int=32,                # side of the images
    batch:int=16,               # images at once
    rounds:int=9,               # how often everything is timed
    threads:int=2,              # processor threads
    device='cpu',
    clock:str='wall',           # seconds that pass, or 'cpu': seconds of the processor
    names=tuple(contestants),   # who takes part
    starts:int=3,               # fresh processes of each library
) -> dict:                      # ready for JSON
    "All side by side: 'setting', 'parameters', 'off', 'seconds', 'where', 'fresh'."
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp)
        prepare(folder, width, size, attention=(size//2, size//4))
        field = {name: contestants[name](folder, size) for name in names}
        for c in field.values(): c.net.to(device)
        x = torch.randn(batch, 3, size, size, device=device)
        t = torch.randint(1, 1001, (batch,), device=device)
        with torch.no_grad(): answers = {name: c.predict(x, t) for name, c in field.items()}
        ours = answers['diffnb']
        off = {name: ((a - ours).norm()/ours.norm()).item() for name, a in answers.items()}
        made = tasks(field, x, t, device=device)
        if device != 'cpu': made.pop('sampling')        # not every library's loop moves its tables
        times = {task: interleaved(calls, rounds, device, clocks[clock])
                 for task, calls in made.items()}
        lists, begun = {}, {}
        if device == 'cpu':
            lists = {task: {name: where(made[task][name], 2, clocks[clock])
                            for name in names if name in made[task]}
                     for task in ('inference', 'training step')}
            begun = {name: [fresh(name, folder, size, batch, threads) for _ in range(starts)]
                     for name in names if name != 'azula, keeping'}
    machine = platform.processor() or platform.machine()
    setting = dict(width=width, size=size, batch=batch, threads=threads, device=str(device),
                   clock=clock, machine=machine, torch=torch.__version__,
                   python=platform.python_version())
    parameters = {name: parameter_count(c.net) for name, c in field.items()}
    return dict(setting=setting, parameters=parameters, off=off, seconds=times, where=lists,
                fresh=begun)


# What 16 bits and compilation gain

def recipe_network(size:int, examples:int=10_000):  # of colour images -> a U-Net
    "The network that a command makes for so many images of this size."
    from types import SimpleNamespace
    from diffnb.recipe import recipe
    from diffnb.unet import UNet
    class Photos(SimpleNamespace):
        def __len__(self): return examples
    return UNet(in_channels=3, **recipe(Photos(shape=(3, size, size))).network)

def in_modes(
    size:int,                   # side of the images
    batch:int,                  # images at once
    device='cpu',
    compiled:bool=False,        # torch.compile, too?
) -> tuple:                     # {task: {mode: function without arguments}}, parameters
    "A forward pass and a training step of the recipe's network, in 32 and in 16 bits."
    net = recipe_network(size).to(device)
    x = torch.randn(batch, 3, size, size, device=device)
    t = torch.full((batch,), 500, device=device)
    nets = dict(eager=net) | (dict(compiled=torch.compile(net)) if compiled else {})
    def forward(net, half):
        with torch.no_grad(), torch.autocast(x.device.type, torch.bfloat16, half): net(x, t)
    def step(net, half):
        with torch.autocast(x.device.type, torch.bfloat16, half): loss = net(x, t).square().mean()
        loss.backward()
        for p in net.parameters(): p.grad = None
    def in_both(call):
        ways = product(nets, {'32 bits': False, 'bf16': True}.items())
        return {f"{name}, {bits}": partial(call, nets[name], half) for name, (bits, half) in ways}
    return dict(inference=in_both(forward), training=in_both(step)), parameter_count(net)

def kept_bytes(call) -> int:    # a function without arguments
    "What one call keeps for its backward pass, weights included: each storage once."
    seen = {}
    def pack(tensor):
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor): call()
    return sum(seen.values())

def gains(
    sizes=((32, 8), (64, 4)),   # side of the images, images at once
    rounds:int=9,               # how often everything is timed
    threads:int=1,              # processor threads
    device='cpu',
    clock:str='cpu',            # seconds of the processor, or 'wall'
    compiled:bool=False,        # torch.compile, too? It needs a C++ compiler, and minutes
) -> dict:                      # ready for JSON
    "For each size: 'parameters', 'batch', 'seconds', 'kept' (bytes for the backward pass)."
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    found = dict(setting=dict(threads=threads, device=str(device), clock=clock,
                              torch=torch.__version__))
    for size, batch in sizes:
        calls, parameters = in_modes(size, batch, device, compiled)
        kept = {mode: kept_bytes(call) for mode, call in calls['training'].items()
                if 'eager' in mode}
        times = {task: interleaved(c, rounds, device, clocks[clock]) for task, c in calls.items()}
        found[str(size)] = dict(parameters=parameters, batch=batch, seconds=times, kept=kept)
    return found

def gains_summary(found:dict) -> list:      # of `gains` -> lines
    "Images a second, and how many times as fast as 32 bits without compilation."
    lines = []
    for size in [k for k in found if k != 'setting']:
        f = found[size]
        lines.append(f"{size}×{size}, {f['parameters']/1e6:.1f} million parameters, batches of "
                     f"{f['batch']}")
        for task, times in f['seconds'].items():
            for mode, took in times.items():
                kept = f['kept'].get(mode)
                memory = f", keeps {kept/1e6:.0f} MB" if kept and task == 'training' else ''
                lines.append(f"  {task:10s}{mode:20s}{f['batch']/statistics.median(took):8.2f} "
                             f"images/s, {ratio(times['eager, 32 bits'], took)} times as fast"
                             f"{memory}")
    return lines

def main(words:list=None):      # of the command line
    "The benchmark as a command."
    parser = argparse.ArgumentParser(
        prog='python benchmarks/speed.py',
        description="diffnb beside diffusers, azula and denoising-diffusion-pytorch")
    for name, default, what in [('width', 64, "channels of the finest level"),
                                ('size', 32, "side of the images"),
                                ('batch', 16, "images at once"),
                                ('rounds', 9, "how often everything is timed"),
                                ('threads', 2, "processor threads"),
                                ('starts', 3, "fresh processes of each library")]:
        parser.add_argument(f'--{name}', type=int, default=default,
                            help=f"{what}, {default} if not given")
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--clock', default='wall', choices=list(clocks),
                        help="seconds that pass, or seconds of the processor")
    parser.add_argument('--out', help="a JSON file; else it is printed")
    parser.add_argument('--gains', action='store_true',
                        help="what 16 bits gain, instead of other libraries")
    parser.add_argument('--compile', action='store_true',
                        help="with --gains: torch.compile, too; needs a C++ compiler")
    for name in ('report', 'folder'):                   # said by `fresh`
        parser.add_argument(f'--{name}', help=argparse.SUPPRESS)
    a = parser.parse_args(words)
    if a.rounds < 6:
        parser.error("six rounds at least, or no interval misses in 5 % of the cases only")
    torch.set_num_threads(a.threads)
    if a.report:
        print(json.dumps(report(a.report, a.folder, a.size, a.batch)))
        return
    if a.gains:
        found = gains(rounds=a.rounds, threads=a.threads, device=a.device, clock=a.clock,
                      compiled=a.compile)
        if a.out: Path(a.out).write_text(json.dumps(found, indent=1) + '\n')
        print('\n'.join(gains_summary(found)) if a.out else json.dumps(found))
        return
    found = benchmark(a.width, a.size, a.batch, a.rounds, a.threads, a.device, a.clock,
                      starts=a.starts)
    if a.out: Path(a.out).write_text(json.dumps(found, indent=1) + '\n')
    print('\n'.join(summary(found)) if a.out else json.dumps(found))

if __name__ == '__main__': main()
