#!/usr/bin/env python3
"""Does every function that takes a model pass the labels on? python .ci/labels.py

All functions and classes of the package that take a model, a network or conditions are in one of
two tables: a call to compare with the same call of a model whose network was closed over the labels
by hand, or the reason why labels cannot matter there. A name in neither fails. Then the wrong twin:
the same comparisons with a network that loses its labels must all fail. And without labels a model
that was trained with labels only is refused by all that start a computation.
"""
import importlib, inspect, pkgutil, sys, tempfile
from pathlib import Path
import torch
from torch import nn
import diffnb
from diffnb import (
    cosine_schedule, ddim_encode, flow_schedule, sample, solvers, variance, vlb, Denoiser, MLP,
    TensorData, UNet)
from diffnb.checks import facts
from diffnb.ddim import DDIM, encode_step
from diffnb.flow import moved, reflow_pairs, straightness, velocity
from diffnb.guidance import ClassifierFreeGuidance, ClassifierGuidance
from diffnb.likelihood import bits_per_dim, estimate_bits_per_dim, price, prices
from diffnb.loss import ask, bound_term, losses
from diffnb.metrics import bits, fingerprint, labels_of, quality
from diffnb.sample import DDPM, draw, draw_batches, timesteps, trajectory, walk_down
from diffnb.score import AnnealedLangevin, score_of
from diffnb.sde import PredictorCorrector, continuous, flow_bits_per_dim
from diffnb.unet import matched_labels

N, T = 12, 20
taus = timesteps(T, 5)
# labels: says what a model takes, or reads the facts itself. cost: counts parameters or operations,
# or names weights. file: stores or fills weights. step: is a table, or a choice by settings
WITHOUT = {
    'checkpoint': dict(save='file', load_weights='file', save_network='file', Training='file'),
    'checks': dict(entries='labels', bare='labels', facts='labels', check_condition='labels'),
    'unet': dict(labelled='labels', matched_labels='labels', check_labels='labels',
                 parameter_count='cost', flop_count='cost'),
    'likelihood': dict(jumps='step'),
    'metrics': dict(accuracy='step', said='labels'), # of a classifier, which has no labels as input
    'guidance': dict(train_classifier='step'),       # likewise
    'overview': {'Fitted': 'step', 'Flow.numbers': 'cost'},
    'pretrained': dict(published_names='cost', adm_names='cost', fill='file', to_diffusers='file',
                       diffusers_names='cost', scheduler_for='file'),
    'onnx': dict(Graph='file', example='labels', about_graph='file', to_onnx='file'),
    'scaling': dict(training_cost='cost'),
    'train': dict(chosen_loss='step', chosen_times='step', filled='step', keep_less='step',
                  Run='step', check_fit='labels',       # tested in nbs/85_train.ipynb
                  take_weights='file'),
    'recipe': dict(Row='step', Recipe='step'),
    'solvers': dict(usual='step'),
    'flow': dict(coupled_loss='labels'),             # tested in nbs/34_flow.ipynb
    # a model of symbols takes no labels
    'discrete': dict.fromkeys(('SymbolDenoiser', 'symbol_bound', 'symbol_step', 'sample_symbols',
                               'symbol_loss'), 'labels'),
    # tested with the commands, in nbs/90_cli.ipynb
    'cli': dict.fromkeys(('new_network', 'new_model', 'check_model', 'train_cli', 'labels_for',
                          'check_unlabelled', 'load_classifier', 'guided', 'planned', 'Plan',
                          'calls_for', 'how_to_draw'), 'labels')}

class Told(nn.Module):
    "The network with its labels closed in: of each example, or the first label for all."
    def __init__(self, net, y):
        super().__init__()
        self.net, self.y = net, y
    def forward(self, x, t):
        all_one = self.y[:1].expand(len(x), *self.y.shape[1:])
        return self.net(x, t, self.y if len(self.y) == len(x) else all_one)

class Deaf(nn.Module):
    "The wrong twin: it says that it takes labels, and loses them."
    def __init__(self, net):
        super().__init__()
        self.net, self.config = net, net.config
    def forward(self, x, t, y=None): return self.net(x, t)

def same(net): return net

def generator(): return torch.Generator().manual_seed(0)

def steered(model):
    "A classifier's guidance that changes nothing."
    return ClassifierGuidance(model, lambda x_t, t, y=None: torch.zeros_like(x_t), 2.)

def calls(image):
    "Name -> (does each example keep its place and its noise?, call(model, **cond))."
    x = torch.randn(N, 1, 4, 4, generator=generator()) if image else \
        torch.randn(N, 2, generator=generator())
    grid = (x.clamp(-1, 1)*8).round()/8
    eps = torch.randn(x.shape, generator=generator())
    t = torch.arange(1, N + 1)
    def chain(step): return lambda m, **c: sample(m, x, step, taus, generator(), **c)
    def stepping(step):
        return lambda m, **c: step(m, x, 9, 4, generator=generator(), **c)
    def bound(m, **c):
        at, _, output, unit, o = ask(m, grid, t, eps, None, **c)
        return bound_term(m, grid, at, unit, output, o, 17)
    found = {
        'denoiser.Denoiser': (1, lambda m, **c: m.p_mean_variance(x, 9, **c).mean),
        'sample.DDPM': (1, stepping(DDPM())), 'ddim.DDIM': (1, stepping(DDIM(.5))),
        'sample.sample': (1, chain(DDPM())),
        'sample.walk_down': (1, lambda m, **c: [*walk_down(m, x, DDIM(), taus, **c)][-1][1]),
        'sample.trajectory': (1, lambda m, **c: [*trajectory(m, x, DDIM(), taus, **c)][-1][1]),
        'sample.draw_batches': (0, lambda m, **c: draw(m, N, x.shape[1:], 5, batch_size=5, **c)),
        'ddim.encode_step': (1, lambda m, **c: encode_step(m, x, 4, 9, 1, **c)),
        'ddim.ddim_encode': (1, lambda m, **c: ddim_encode(m, x, taus, **c)),
        'score.score_of': (1, lambda m, **c: score_of(m, x, 9, **c)),
        'score.AnnealedLangevin': (1, chain(AnnealedLangevin(1, .1))),
        'sde.PredictorCorrector': (1, chain(PredictorCorrector())),
        'sde.continuous': (1, lambda m, **c: score_of(continuous(m), x, 3.5, **c)),
        'sde.flow_bits_per_dim': (1, lambda m, **c: flow_bits_per_dim(
            m, grid, 17, 3, 2., generator(), **c)),
        'vlb.vb_term': (1, lambda m, **c: vlb.vb_term(m, grid, x, t, 17, **c)),
        'likelihood.price': (1, lambda m, **c: price(m, grid, t, t - 1, eps, 17, c).T),
        'likelihood.prices': (0, lambda m, **c: prices(
            m, grid, torch.arange(N), t, t - 1, 17, 5, None, False, c, eps)),
        'likelihood.bits_per_dim': (0, lambda m, **c: bits_per_dim(m, grid, 17, taus, eps, **c)[0]),
        'likelihood.estimate_bits_per_dim': (0, lambda m, **c: torch.tensor(estimate_bits_per_dim(
            m, grid, 200, 17, taus, 50, generator(), **c).total)),
        'variance.mse_at': (0, lambda m, **c: variance.mse_at(m, x, 9, 30, generator(), c)),
        'variance.x0_mse': (0, lambda m, **c: variance.x0_mse(m, x, 8, 4, generator(), **c)),
        'variance.OptimalVariance': (1, lambda m, **c: variance.OptimalVariance(
            m, torch.ones(T + 1)).p_mean_variance(x, 9, **c).mean),
        'variance.per_example': (0, lambda m, **c: m(x, 9, **variance.per_example(c, x))[0]),
        'loss.ask': (1, lambda m, **c: ask(m, x, t, eps, None, **c)[2]),
        'loss.bound_term': (1, bound),
        'flow.velocity': (1, lambda m, **c: velocity(continuous(m), x, 3.5, **c)),
        'flow.straightness': (1, lambda m, **c: straightness(m, x, taus, **c)),
        'flow.reflow_pairs': (1, lambda m, **c: reflow_pairs(m, x, 4, **c)),
        'flow.moved': (1, lambda m, **c: moved(continuous(m), flow_schedule())(x, .5, **c)[0]),
        'guidance.ClassifierGuidance': (1, lambda m, **c: steered(m)(x, 9, **c)[0]),
        'guidance.ClassifierGuidance.moments': (
            1, lambda m, **c: steered(m).p_mean_variance(x, 9, **c).mean)}
    for name, loss in losses.items():
        more = dict(bins=17) if name in ('hybrid', 'vlb') else {}
        if name == 'stable': more = dict(among=(grid, None))    # whatever their labels
        found[f'loss.{name}_loss'] = (1, lambda m, loss=loss, more=more, **c: loss(
            m, grid, t, eps, **more, **c))
    for name in solvers.samplers:
        step, times = solvers.sampler(name, cosine_schedule(T), 6)
        found[f'solvers.{name}'] = (1, lambda m, step=step, times=times, **c: sample(
            m, x, step, times, generator(), **c))
    return found

def network(image, parts, vectors=False):
    "A small network whose output depends on the labels; the same one each time."
    torch.manual_seed(0)
    kind = dict(label_dim=2) if vectors else dict(num_classes=3)
    if image: net = UNet(channels=8, mults=(1,), groups=4, out_channels=parts, **kind)
    else: net = MLP(out_dim=2*parts, width=16, depth=1, **kind)
    for p in net.parameters(): nn.init.normal_(p, std=.3)
    return net

def dropped(image, wrap=same, vectors=False) -> tuple:
    "Names of the calls that do not give what the closed network gives; how many there are."
    y, lost, found = torch.arange(N) % 3, [], calls(image)
    if vectors: y = torch.randn(N, 2, generator=generator())
    for name, (own_place, call) in found.items():
        unit = 'learned' if name in ('loss.hybrid_loss', 'loss.vlb_loss') else 'small'
        net = network(image, 2 if unit == 'learned' else 1, vectors)
        def model(net): return Denoiser(net, cosine_schedule(T), 'v', unit).eval()
        # where examples have an order of their own, all get one label
        for labels in [y] if own_place else [y[k:k + 1].expand_as(y) for k in range(3)]:
            heard, by_hand = call(model(wrap(net)), y=labels), call(model(Told(net, labels)))
            if not torch.equal(heard, by_hand): lost.append(name)
    return list(dict.fromkeys(lost)), len(found)

class Reads(nn.Module):
    "Counts examples with another label than the data say, which are 1000 (label + 1) and noise."
    def __init__(self, turn):
        super().__init__()
        self.config, self.wrong, self.turn = dict(num_classes=3), 0, turn
    def forward(self, x, t, y):
        a = cosine_schedule(T).a[t].to(x)
        true = (x.flatten(1).mean(1)/a/1000).round().long() - 1
        self.wrong += (true != (y + self.turn) % 3).sum().item()
        return 0*x

def misplaced(turn=0) -> list:
    "Names of the calls in which some example gets another's label; the wrong twin turns them."
    y, lost = torch.arange(N) % 3, []
    x = 1000.*(y + 1)[:, None].expand(N, 4)
    t, early = torch.arange(N) + 1, [17, 12, 8, 4, 1, 0]
    for name, call in {
        'likelihood.prices': lambda m: prices(
            m, x, torch.arange(N).flip(0), t, t - 1, None, 5, None, False, dict(y=y)),
        'likelihood.bits_per_dim': lambda m: bits_per_dim(m, x, None, early, batch_size=5, y=y),
        'likelihood.estimate_bits_per_dim': lambda m: estimate_bits_per_dim(
            m, x, 200, None, early, 50, generator(), y=y),
        'variance.mse_at': lambda m: variance.mse_at(m, x, 9, 30, generator(), dict(y=y)),
        'variance.x0_mse': lambda m: variance.x0_mse(m, x, 8, 4, generator(), y=y)}.items():
        model = Denoiser(Reads(turn), cosine_schedule(T), 'x0')
        call(model)
        if model.net.wrong: lost.append(name)
    model = Denoiser(network(False, 1), cosine_schedule(T), 'v').eval()
    heard = draw(model, N, (2,), taus, batch_size=5, step=DDIM(), y=(y + turn) % 3)
    for i, x in draw_batches(model, N, (2,), taus, batch_size=5, step=DDIM(), y=y):
        z = torch.randn(x.shape, generator=torch.Generator().manual_seed(1_000_003 * (i//5)))
        by_hand = sample(model, z, DDIM(), taus, y=y[i:i + 5])
        if not torch.equal(heard[i:i + 5], by_hand): lost.append('sample.draw_batches')
    return list(dict.fromkeys(lost))

def by_data(wrap=same) -> list:
    "Names of what takes its labels from a data set, and guidance, if they lose them."
    pixels = torch.randint(0, 17, (40, 1, 4, 4), dtype=torch.uint8, generator=generator())
    data = TensorData('x', pixels, 17, torch.arange(40) % 3, ['a', 'b', 'c'])
    net, lost, sched = network(True, 1), [], cosine_schedule(T)
    model = Denoiser(wrap(net), sched, 'v').eval()
    if not torch.equal(labels_of(model, data, 40)['y'].bincount(), data.labels.bincount()):
        lost.append('metrics.labels_of')
    with tempfile.TemporaryDirectory() as folder:
        heard = bits(model, data, Path(folder)/'a.png', 400, batch_size=100)['at_most']
    plain = Denoiser(net, sched, 'v').eval()
    if heard != estimate_bits_per_dim(plain, data.tensor(), 400, 17, batch_size=100,
                                      y=data.labels, generator=generator()).total:
        lost.append('metrics.bits')
    # the classes of other data in another order: the same labels, by name
    model.about = dict(classes=['a', 'b', 'c'])
    turned = TensorData('x', pixels, 17, (data.labels + 1) % 3, ['c', 'a', 'b'])
    if not torch.equal(matched_labels(model, turned, turned.labels), data.labels):
        lost.append('unet.matched_labels')
    if not torch.equal(labels_of(model, turned, 40)['y'], labels_of(model, data, 40)['y']):
        lost.append('metrics.labels_of')
    with tempfile.TemporaryDirectory() as folder:
        if heard != bits(model, turned, Path(folder)/'a.png', 400, batch_size=100)['at_most']:
            lost.append('metrics.bits')
    heard, told = quality(model, data, n=40, steps=4), data.labels.sort().values
    step, times = solvers.sampler('ddpm', sched, 4)
    x = draw(Denoiser(Told(net, told), sched, 'v').eval(), 40, (1, 4, 4), times, step=step)
    if heard['samples']['sha256'] != fingerprint(x)['sha256']: lost.append('metrics.quality')
    bs = Denoiser(Told(net, torch.ones(20).long()), sched, 'v').eval()
    x = draw(bs, 20, (1, 4, 4), times, step=step)
    for examples in (data, turned):         # one class, by its name
        heard = quality(model, examples, n=20, steps=4, label='b', kernels=True)
        if heard['samples']['sha256'] != fingerprint(x)['sha256']: lost.append('metrics.only')
    x, y = torch.randn(6, 1, 4, 4, generator=generator()), torch.arange(6) % 3
    guided = ClassifierFreeGuidance(model, 3.)
    heard = guided.output(x, torch.full((6,), 9), 1, y=y)[0]
    t = torch.full((6,), 9)
    alone = ClassifierFreeGuidance(model, 1.).output(x, t, 1, y=y)[0]
    if not (torch.allclose(heard, net(x, t) + 3*(net(x, t, y) - net(x, t)), atol=1e-5)
            and torch.equal(alone, net(x, t, y))):
        lost.append('guidance.ClassifierFreeGuidance')
    return list(dict.fromkeys(lost))

def refused() -> list:
    "Names of what works without the labels that the model cannot do without."
    sure = [Denoiser(network(False, n), cosine_schedule(T), 'v', unit).eval()
            for n, unit in ((1, 'small'), (2, 'learned'))]
    for model in sure: model.about = dict(label_dropout=0)
    silent = []
    for name, (_, call) in calls(False).items():
        model = sure[name == 'loss.hybrid_loss']
        starts = name.split('.')[0] in ('sample', 'likelihood', 'solvers') and name not in (
            'sample.DDPM', 'likelihood.price')
        starts |= name in ('ddim.ddim_encode', 'variance.x0_mse', 'sde.flow_bits_per_dim')
        for cond in ({}, dict(y=torch.arange(N) % 3 - 1)):         # none, or one that is missing
            if cond and not starts: continue        # values are read once a chain, not at each call
            try: call(model, **cond)
            except ValueError as e:
                if 'with labels only' in str(e): continue
            silent.append(name)
    wrappers = dict(continuous=continuous, ClassifierGuidance=steered,
                    OptimalVariance=lambda m: variance.OptimalVariance(m, torch.ones(T + 1)))
    silent += [name for name, wrap in wrappers.items() if not facts(wrap(model)).label_required]
    return silent

def unlisted() -> list:
    "What takes a model, a network or conditions and is in no table."
    known = set(calls(False))
    known |= {'guidance.ClassifierFreeGuidance', 'metrics.bits', 'metrics.quality',
              'metrics.labels_of', 'metrics.only', 'metrics.told_labels', 'solvers.Heun',
              'solvers.DPMSolver', 'train.train',
              'train.Trainer'}         # the last two: in nbs/85_train.ipynb
    known |= {f'denoiser.{c}' for c in (         # inside every call above
        'StepBack.forward', 'Denoiser.check', 'Denoiser.output', 'Denoiser.moments',
        'Denoiser.p_mean_variance')}
    known |= {f'guidance.{c}' for c in (
        'ClassifierGuidance.check', 'ClassifierGuidance.forward', 'ClassifierFreeGuidance.output')}
    known |= {'score.AnnealedLangevin.stay', 'flow.Elsewhere', 'flow.Elsewhere.forward'}
    missing = []
    for m in pkgutil.iter_modules(diffnb.__path__):
        if m.name.startswith('_'): continue
        module = importlib.import_module(f'diffnb.{m.name}')
        for name in module.__all__:
            f = getattr(module, name)
            if not callable(f) or getattr(f, '__module__', '') != module.__name__: continue
            parts = {name: f}
            if inspect.isclass(f):
                parts |= {f'{name}.{k}' if k.strip('_') == k else name: v
                          for k, v in vars(f).items() if inspect.isfunction(v)
                          if k == '__call__' or not k.startswith('_')}
            for part, g in parts.items():
                try: takes = set(inspect.signature(g).parameters)
                except ValueError: continue
                if not takes & {'model', 'net', 'denoiser', 'cond'}: continue
                if part in WITHOUT.get(m.name, {}) or f'{m.name}.{part}' in known: continue
                missing.append(f'{m.name}.{part}')
    return missing

def compiled(net): return torch.compile(net, backend='eager')

def main():
    faults = [f'{name}: in no table of .ci/labels.py' for name in unlisted()]
    for image, wrap, vectors in (
            (False, same, False), (False, nn.DataParallel, False), (False, compiled, False),
            (True, same, False), (False, same, True), (True, nn.DataParallel, True)):
        lost, n = dropped(image, wrap, vectors)
        faults += [f'{name} loses the labels ({wrap.__name__}, vectors: {vectors})'
                   for name in lost]
        print(f"{n - len(lost)} of {n} calls pass the labels on, "
              f"{'images' if image else 'points'}, {wrap.__name__}"
              + (', vectors' if vectors else ''))
    faults += [f'{name} gives an example the label of another' for name in misplaced()]
    turned = misplaced(1)
    print(f'with labels turned by one, {len(turned)} of 6 comparisons fail')
    if len(turned) < 6: faults.append('the twin with turned labels is not seen')
    for wrap in (same, nn.DataParallel):
        faults += [f'{name} loses the labels ({wrap.__name__})' for name in by_data(wrap)]
    lost, n = dropped(False, Deaf)
    print(f"with a network that loses its labels, {len(lost)} of {n} comparisons fail, and "
          f"{', '.join(by_data(Deaf))}")
    if len(lost) < n: faults.append(f'not seen by the twin: {set(calls(False)) - set(lost)}')
    if len(by_data(Deaf)) < 3: faults.append('the twin with data is not seen')
    faults += [f'{name} works without the labels that it needs' for name in refused()]
    print(*faults, sep='\n')
    return 1 if faults else 0

if __name__ == '__main__': sys.exit(main())
