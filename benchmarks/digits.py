#!/usr/bin/env python3
"""Which training job suits the 1797 digits? python benchmarks/digits.py chosen --seeds 0 1 2

Trains each named candidate, draws as many samples as there are examples with several samplers, and
keeps their Fréchet distance from the data (by chance 0.071), and whether they are copies: `nearer`
is ½ for fresh digits, towards 1 for copies. Seconds are of one processor, with one thread; on a
busy machine they grow, so compare milliseconds: --time alternates steps of the candidates.
"""
import argparse, json, time
from pathlib import Path
import torch
from diffnb.data import load_data
from diffnb.denoiser import Denoiser
from diffnb.metrics import quality
from diffnb.schedule import cosine_schedule
from diffnb.train import train
from diffnb.unet import UNet

light = dict(resample='pool', middle_attention=False)
short = dict(steps=3100, batch_size=64, lr=4e-3)
candidates = dict(                  # what is predicted, the network, the settings
    default=('eps', {}, dict(steps=2200, batch_size=128, lr=3e-3)),
    edm=('edm', {}, dict(steps=2200, batch_size=128, lr=3e-3)),
    light=('edm', light, short),
    stable=('edm', light, short | dict(loss='stable', log_sigma=-.4)),
    # larger batches make use of a second core
    chosen=('edm', light, dict(steps=1700, batch_size=128, lr=5e-3, loss='stable', log_sigma=-.4)))
sampled = [('dpmpp2m', calls) for calls in (10, 15, 20, 25)]
sampled += [('unipc', 20), ('heun', 25), ('ddim', 25)]

def trained(name, data, seed=0, **others) -> tuple:
    "A run of a candidate, and the seconds of each step."
    predicts, network, settings = candidates[name]
    torch.manual_seed(seed)
    model = Denoiser(UNet(**network), cosine_schedule(), predicts, 'large', (-1, 1))
    clock = []
    run = train(model, data, seed=seed, progress=False, **settings | others,
                callback=lambda trainer: clock.append(time.process_time()))
    return run, torch.tensor(clock).double().diff()

def trial(name, data, seed) -> dict:
    "Train, sample, measure."
    run, seconds = trained(name, data, seed)
    found = dict(seed=seed, seconds=round(seconds.sum().item()), distance={})
    for sampler, calls in sampled:
        scores = quality(run.model, data, steps=calls, sampler=sampler)
        found['distance'][f'{sampler} {calls}'] = round(scores['frechet_distance'], 4)
        if calls == 20: found |= {k: round(scores[k], 4) for k in ('nearer', 'copies')}
        print(name, seed, sampler, calls, round(scores['frechet_distance'], 4), flush=True)
    return found

def milliseconds(names, data, rounds=4) -> dict:
    "CPU time of a step of each candidate: the fastest tenth of 30 steps, the least of rounds."
    found = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            found[name].append(trained(name, data, steps=30)[1].quantile(.1).item()*1000)
    return {name: round(min(each), 2) for name, each in found.items()}

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('names', nargs='*', default=list(candidates))
    parser.add_argument('--seeds', type=int, nargs='*', default=[0, 1, 2])
    parser.add_argument('--out', type=Path, default=Path(__file__).with_suffix('.json'))
    parser.add_argument('--time', action='store_true', help='only measure a step')
    args = parser.parse_args()
    torch.set_num_threads(1)
    data, kept = load_data('digits'), {}
    if args.out.exists(): kept = json.loads(args.out.read_text())
    if args.time: kept['milliseconds'] = milliseconds(args.names, data)
    for name in [] if args.time else args.names:
        for seed in args.seeds:
            kept.setdefault(name, []).append(trial(name, data, seed))
            args.out.write_text(json.dumps(kept, indent=1) + '\n')
    args.out.write_text(json.dumps(kept, indent=1) + '\n')
