#!/usr/bin/env python3
"""Hold the library to outputs that were kept: kept.py [--write] [GROUP ...]

Computes every output again and compares it with kept.safetensors (--write: makes that file). A
difference is relative to the largest kept number of its row (first dimension), or to 1e-20.
"""
import sys, traceback
from itertools import product
from pathlib import Path
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from diffnb.checkpoint import load
from diffnb.ddim import DDIM, ddim_encode, slerp
from diffnb.denoiser import Denoiser
from diffnb.forward import prior_kl, q_sample
from diffnb.guidance import ClassifierFreeGuidance
from diffnb.likelihood import bits_per_dim
from diffnb.loss import eps_weight, lognormal_times, simple_loss
from diffnb.posterior import q_posterior
from diffnb.sample import DDPM, sample, timesteps, trajectory
from diffnb.schedule import cosine_schedule, geometric_schedule, linear_schedule
from diffnb.score import AnnealedLangevin
from diffnb.solvers import DPMSolver, Heun, UniPC, sampler, solver_times
from diffnb.variance import hybrid_loss, vlb_loss
from diffnb.vlb import discretized_gaussian_log_likelihood, prior_bpd, vb_term

file = Path(__file__).with_name('kept.safetensors')
units, variances = ('eps', 'x0', 'v', 'score', 'mu', 'edm'), ('small', 'large', 'learned')
steps = dict(ddpm=DDPM(), ddpm_large=DDPM('large'), ddim=DDIM(0.), ddim_half=DDIM(.5),
             ddim_one=DDIM(1.), heun=Heun(), heun_churn=Heun(.3), dpmpp=DPMSolver(),
             dpmpp_sde=DPMSolver(1.), unipc=UniPC(), langevin=AnnealedLangevin(3, .2))

def schedules(T=50, beta=(.002, .4)):
    return dict(linear=linear_schedule(T, *beta), cosine=cosine_schedule(T),
                geometric=geometric_schedule(T, .01, 10.))
def seeded(seed=3): return torch.Generator().manual_seed(seed)
def normal(seed, *shape): return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)
def images(): return torch.randint(8, (2, 1, 4, 4), generator=seeded(2)).double() * 2/7 - 1
def column(*parts): return torch.cat([torch.as_tensor(p).flatten() for p in parts])[:, None]
def like(x, parts): return torch.cat([torch.as_tensor(p).to(x).expand_as(x) for p in parts])

class Smooth(nn.Module):
    "tanh(x W + t/T): a network that is smooth, fixed, and as wide as the variance needs."
    def __init__(self, D, wide, T):
        super().__init__()
        self.W, self.T = nn.Parameter(normal(9, D, D*wide) / D**.5), T
    def forward(self, x, t):
        time = torch.as_tensor(t).to(x).expand(len(x)) / self.T
        return (x.flatten(1) @ self.W + time[:, None]).tanh().reshape(len(x), -1, *x.shape[2:])

def denoiser(sched, unit, variance='small', clip=None, D=2):
    return Denoiser(Smooth(D, 1 + (variance == 'learned'), sched.T), sched, unit, variance, clip)

def tables():
    for where, sched in (schedules() | dict(long=linear_schedule())).items():
        for name in ('beta', 'alpha_bar', 'beta_tilde'):
            yield f'{where} {name}', getattr(sched, name)[:, None]
        for name, level in dict(signal=sched.signal, noise=sched.noise).items():
            each = [float(level(t)) for t in range(sched.T + 1)]
            yield f'{where} {name}', column(torch.tensor(each, dtype=torch.float64))
            yield f'{where} {name} of a batch', column(level(torch.tensor([0, 1, 2, 30, 50])))

def chains():
    for (i, (where, sched)), (j, unit) in product(enumerate(schedules().items()), enumerate(units)):
        x_T = normal(1, 4, 2) * float(sched.noise(sched.T))
        for k, (name, step) in enumerate(steps.items()):
            if name == 'langevin' and where != 'geometric': continue
            model = denoiser(sched, unit, clip=(-1.5, 1.5) if (j + k) % 2 else None)
            taus = timesteps(50, 50 if (i + j + k) % 3 == 0 else 10)
            walk = [x for _, x in trajectory(model, x_T, step, taus, seeded())]
            yield f'{where} {unit} {name}', torch.stack(walk if (i + j + k) % 3 == 1 else walk[-1:])
        model = denoiser(sched, unit, 'learned', clip=(-1.5, 1.5) if j % 2 else None)
        end = sample(model, x_T, DDPM(), timesteps(50, 10), seeded())
        yield f'{where} {unit} learned', end[None]

def predictions():
    x, batch, ends = normal(4, 4, 2), torch.tensor([1, 2, 30, 50]), torch.tensor([0, 0, 12, 49])
    asked = [(1, None), (2, 0), (30, None), (30, 7), (50, None), (batch, None), (batch, ends)]
    for (where, sched), unit in product(schedules().items(), units):
        models = [denoiser(sched, unit, variance) for variance in variances]
        models += [denoiser(sched, unit, clip=(-.5, .5))]
        found = [model.p_mean_variance(x, t, s) for model, (t, s) in product(models, asked)]
        for part in ('mean', 'var', 'log_var', 'x0', 'eps'):
            yield f'{where} {unit} {part}', like(x, [getattr(p, part) for p in found])
    for where, sched in schedules().items():
        found = zip(*[q_posterior(sched, x, x.flip(0), t, s) for t, s in asked])
        yield from [(f'{where} posterior {i}', like(x, parts)) for i, parts in enumerate(found)]
        noised = [q_sample(sched, x, t, x.flip(0)) for t in (0, 1, 30, 50, batch)]
        yield f'{where} forward', like(x, noised)

def bounds():
    x0, eps, batch = images(), normal(5, 2, 1, 4, 4), torch.tensor([1, 50])
    for (where, sched), variance, bins in product(schedules().items(), variances, (8, None)):
        model = denoiser(sched, 'eps', variance, (-1, 1) if bins else None, 16)
        noised = [(t, q_sample(sched, x0, t, eps)) for t in (1, 25, 50, batch)]
        terms = [vb_term(model, x0, x_t, t, bins=bins) for t, x_t in noised]
        yield f'{where} {variance} {bins} terms', column(*terms)
    for (where, sched), unit, bins in product(schedules(20, (.005, .6)).items(), units, (8, None)):
        model = denoiser(sched, unit, variances[units.index(unit) % 3], (-1, 1), 16)
        for S in (20, 6):
            p = bits_per_dim(model, x0, bins=bins, eps=eps, taus=timesteps(20, S))
            yield f'{where} {unit} {bins} {S} bits', column(p.total, p.terms)
            yield f'{where} {unit} {bins} {S} errors', column(p.mse, p.x0_mse)
    for where, sched in schedules().items():
        yield f'{where} prior', column(prior_kl(sched, x0), prior_bpd(sched, x0))
        asked = product((30, torch.arange(1, 51)), variances[:2])
        yield f'{where} weights of eps', column(*[eps_weight(sched, t, v) for t, v in asked])
        for unit in units:
            code = ddim_encode(denoiser(sched, unit), normal(4, 4, 2), timesteps(50, 10))
            yield f'{where} {unit} code', code[None]
    yield 'decoder', column(discretized_gaussian_log_likelihood(x0, .9*x0, eps - 1, bins=8))
    yield 'slerp', torch.stack([slerp(eps, x0, u) for u in (0., .3, 1., 1.2)])

def losses(dtype, *chosen):
    points = normal(6, 4, 2), normal(7, 4, 2), torch.tensor([1, 2, 30, 50]), None
    grey = images(), normal(5, 2, 1, 4, 4), torch.tensor([1, 30]), 8
    for (where, sched), unit, (loss, *may) in product(schedules().items(), units, chosen):
        for (x, eps, t, bins), variance in product((points, grey)[:1 + (unit == 'eps')], may):
            model = denoiser(sched, unit, variance, D=x[0].numel()).to(dtype)
            more = {} if loss is simple_loss else dict(bins=bins)
            value = loss(model, x.to(dtype), t, eps.to(dtype), **more)
            value.sum().backward()
            name = f'{where} {unit} {variance} {loss.__name__} {bins}'
            yield from [(name, value[:, None]), (f'{name} slope', model.net.W.grad[None, :2])]

def samples(dtype, spacing):
    digits = ('digits', 'digits_cond', 'digits_learned', 'digits_ncsn')
    for name in (*digits, 'fashion_mnist', 'guided'):
        model = load('digits_cond' if name == 'guided' else name).to(dtype)
        shape, sched = (2, 1, 28, 28) if name == 'fashion_mnist' else (4, 1, 8, 8), model.sched
        cond = dict(y=torch.tensor([0, 3, 7, 9])) if name in ('digits_cond', 'guided') else {}
        if name == 'guided': model = ClassifierFreeGuidance(model, 2.)
        taus = timesteps(sched.T, 5, spacing)
        solver, grid = sampler('dpmpp2m', sched, 5)
        for step, at in ((DDIM(), taus), (DDPM(), taus), (solver, grid)):
            x = normal(8, *shape).to(dtype) * float(sched.noise(at[0]))
            yield f'{name} {type(step).__name__}', sample(model, x, step, at, seeded(), **cond)

def grids():
    spacings = ('trailing', 'leading', 'linspace', 'quad')
    for T, S, spacing in product((50, 1000), (1, 7, 10, 50), spacings):
        yield f'{T} {S} {spacing}', torch.tensor(timesteps(T, S, spacing))
    for where, sched in (schedules() | dict(long=linear_schedule())).items():
        yield f'{where} drawn', lognormal_times(sched, 100, generator=seeded())
        for S, spacing in product((1, 7, 10, 50), ('edm', 'log_snr')):
            yield f'{where} {S} {spacing}', torch.tensor(solver_times(sched, S, spacing))

simple, hybrid = (simple_loss, 'small'), (hybrid_loss, 'learned')
bound = (vlb_loss, *variances)
groups = dict(tables=(1e-12, tables), chains=(1e-9, chains), predictions=(1e-9, predictions),
              bounds=(1e-9, bounds), grids=(0., grids),
              losses=(1e-9, losses, torch.float64, simple, hybrid, bound),
              losses32=(1e-5, losses, torch.float32, simple, hybrid),
              vlb32=(2e-4, losses, torch.float32, bound),        # itself rounded to 6e-5
              samples=(1e-9, samples, torch.float64, 'trailing'),
              samples32=(1e-4, samples, torch.float32, 'leading'))

def computed(group):
    _, make, *arguments = groups[group]
    return {f'{group}/{name}': value.detach().clone() for name, value in make(*arguments)}

def relative(new, old):
    if new.shape != old.shape or new.dtype != old.dtype: return float('inf')
    new, old = (v.double().reshape(len(v), -1) for v in (new, old))
    gap = (new - old).abs() / old.abs().amax(1, keepdim=True).clamp(min=1e-20)
    return torch.where(new == old, 0., gap.nan_to_num(torch.inf)).max().item()

def compare(group, kept):
    limit, now = groups[group][0], computed(group)
    old = {name: value for name, value in kept.items() if name.startswith(f'{group}/')}
    if now.keys() != old.keys(): raise ValueError(f'names: {now.keys() ^ old.keys()}')
    gaps = {name: relative(now[name], old[name]) for name in old}
    worst = sorted(gaps, key=gaps.get, reverse=True)
    # in float32 the target of edm takes 1 - c_skip a, the difference of two near numbers
    free = {name: 5e-4 for name in gaps if group in ('losses32', 'vlb32') and ' edm ' in name}
    far = [name for name in worst if gaps[name] > free.get(name, limit)]
    print(f'{group:11} {len(gaps):3} outputs, largest relative difference {gaps[worst[0]]:.2g}, '
          f'limit {limit:g}, {len(far)} beyond it')
    for name in far[:10]: print(f'    {name}: {gaps[name]:.2g}')
    return not far

def main(*arguments):
    torch.set_num_threads(1)
    if '--write' in arguments:
        kept = {}
        for group in groups: kept |= computed(group)
        return save_file(kept, file)
    kept, failed = load_file(file), 0
    for group in arguments or groups:
        try: failed += not compare(group, kept)
        except Exception:
            failed += 1
            print(f'{group:11} could not be compared: {traceback.format_exc()}')
    sys.exit(failed > 0)

if __name__ == '__main__': main(*sys.argv[1:])
