#!/usr/bin/env python3
"""What the core promises to devices and to readers: python .ci/core.py

With x on the meta device, no float64 tensor is made by a chain of any sampler or by a loss, forward
and backward (Apple's devices have none). A training step enters at most 12 functions of diffnb
outside the network between batch and loss, a DDIM step at most 6. Exit code 1 otherwise.
"""
import sys, warnings
from itertools import product
from pathlib import Path
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from diffnb import ddim
from diffnb.denoiser import Denoiser, units
from diffnb.loss import losses, simple_loss
from diffnb.sample import sample
from diffnb.schedule import Schedule, cosine_schedule, named_schedule, schedules, zero_snr
from diffnb.solvers import sampler, samplers
from diffnb.unet import MLP, UNet

class NoFloat64(TorchDispatchMode):
    "An operation that takes or gives a float64 tensor raises, on any device."
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for v in tree_leaves((args, kwargs, out)):
            if isinstance(v, torch.Tensor) and v.dtype == torch.float64:
                raise TypeError(f"float64 in {func}, on {v.device}")
        return out

def networks():
    with torch.device('meta'): return [MLP(dim=2, out_dim=n, width=8, depth=1) for n in (2, 4)]

def pairs():
    "Every schedule with every unit that works on it."
    with warnings.catch_warnings():             # of chains that do not end in noise
        warnings.simplefilter('ignore')
        known = {name: named_schedule(name, 30) for name in schedules}
    known['zero terminal SNR'] = zero_snr(cosine_schedule(30))
    for (name, sched), unit in product(known.items(), units):
        silent = sched.signal(sched.end) == 0 and unit in ('eps', 'score')
        counted = isinstance(sched, Schedule)
        if not silent and (counted or unit != 'mu'): yield name, sched, unit

def no_float64() -> int:
    "How many chains and losses passed."
    (net, wide), passed = networks(), 0
    x = torch.randn(3, 2, device='meta')
    for _, sched, unit in pairs():
        plain = Denoiser(net, sched, unit, clip=(-1., 1.))
        learned = Denoiser(wide, sched, unit, 'learned')
        for name in samplers if unit in ('x0', 'edm') else ():
            step, taus = sampler(name, sched, 4)
            with NoFloat64(): sample(plain, x, step, taus)
            passed += 1
        for name, loss in losses.items():
            bound = name in ('hybrid', 'vlb')
            if bound and not isinstance(sched, Schedule): continue
            model = learned if bound else plain
            for t in (None, sched.draw(3)):
                with NoFloat64(): loss(model, x, t).mean().backward()
                passed += 1
    return passed

def entered(f) -> list:
    "Names of the functions of diffnb, outside the network, that a call of f enters."
    seen = []
    def look(frame, event, _):
        path = Path(frame.f_code.co_filename)
        if event == 'call' and path.parent.name == 'diffnb' and path.stem != 'unet':
            seen.append(f'{path.stem}.{frame.f_code.co_name}')
    sys.setprofile(look)
    try: f()
    finally: sys.setprofile(None)
    return list(dict.fromkeys(seen))

def main():
    print(f'{no_float64()} chains and losses without float64')
    try:
        with NoFloat64(): torch.zeros(1, dtype=torch.float64, device='meta') + 1
    except TypeError: pass
    else: sys.exit('the check sees no float64')
    model, x = Denoiser(UNet(), cosine_schedule(), clip=(-1., 1.)), torch.randn(4, 1, 8, 8)
    t, eps, step = torch.tensor([1, 2, 3, 1000]), torch.randn_like(x), ddim.DDIM()
    found = {'training step, drawn': (12, lambda: simple_loss(model, x)),
             'training step, given': (12, lambda: simple_loss(model, x, t, eps)),
             'DDIM step': (6, lambda: step(model, x, 500, 480))}
    for what, (most, f) in found.items():
        names = entered(f)
        print(f'{what}: {len(names)} functions, at most {most}: {", ".join(names)}')
        if len(names) > most: sys.exit(1)

if __name__ == '__main__': main()
