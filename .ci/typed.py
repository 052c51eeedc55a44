"""What users write, for a type checker: it is read, not run.

Right calls must pass; a wrong call must be refused with the error that stands behind it, since
`warn_unused_ignores` makes an error of a line that turns out right.
"""
from pathlib import Path
import torch
from torch import nn
from diffnb import (
    ClassifierFreeGuidance, ClassifierGuidance, DDIM, DDPM, Denoiser, DPMSolver, GaussianMixture,
    Heun, MLP, NoiseSchedule, Schedule, TensorData, UNet, UniPC, adm_flags, bits_per_dim,
    cosine_schedule, ddim_encode, draw, edm_schedule, estimate_bits_per_dim, flow_schedule,
    frechet_distance, from_diffusers, from_guided_diffusion, geometric_schedule, hybrid_loss,
    linear_schedule, load, load_data, min_snr_loss, pull, push, q_posterior, q_sample, sample,
    sampler, save, simple_loss, slerp, timesteps, to_diffusers, to_onnx, train, trajectory,
    vp_schedule, zero_snr)

def schedules() -> list[NoiseSchedule]:
    own = Schedule([.1, .2, .3])
    tables: list[torch.Tensor] = [own.beta, own.alpha, own.alpha_bar, own.beta_tilde]
    print(len(tables), own.T, own.end, own.signal(3), own.noise(torch.tensor([1, 2])))
    a, b = own(torch.tensor([1, 2]), torch.zeros(2, 3))
    chain: Schedule = zero_snr(Schedule.from_levels(own.a[1:], own.b[1:]))
    linear_schedule(T='1000')               # type: ignore[arg-type]
    linear_schedule(steps=1000)             # type: ignore[call-arg]
    edm_schedule(sigma_max='80')            # type: ignore[arg-type]
    zero_snr(flow_schedule())               # type: ignore[arg-type]
    flow_schedule().continuous()            # type: ignore[attr-defined]
    print(own.gamma, a, b)                  # type: ignore[attr-defined]
    return [chain, cosine_schedule(100), geometric_schedule(T=100, sigma_min=.01), flow_schedule(),
            edm_schedule(sigma_max=80.), vp_schedule(beta_min=.1, beta_max=20.), own.continuous(),
            linear_schedule(T=1000, beta_1=1e-4, beta_T=.02)]

def networks(sched: NoiseSchedule) -> Denoiser:
    class Mine(nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor: return x
    for net in (UNet(channels=32, mults=(1, 2, 2), num_classes=10), MLP(width=64), Mine()):
        Denoiser(net, sched)
    UNet(chanels=32)                        # type: ignore[call-arg]
    UNet(mults=2)                           # type: ignore[arg-type]
    MLP(width='64')                         # type: ignore[arg-type]
    Denoiser(Mine(), [.1, .2])              # type: ignore[arg-type]
    Denoiser(Mine(), sched, predicts=None)  # type: ignore[arg-type]
    Denoiser(Mine())                        # type: ignore[call-arg]
    Denoiser(Mine(), flow_schedule(), predicts='flow')
    return Denoiser(Mine(), sched, predicts='v', variance='small', clip=(-1, 1))

def losses(model: Denoiser, x0: torch.Tensor) -> torch.Tensor:
    eps = torch.randn_like(x0)
    x_t = q_sample(model.sched, x0, 10, eps)
    mean, var = q_posterior(model.sched, x0, x_t, 10)
    print(mean.shape, var.shape, simple_loss(model, x0, torch.tensor([1, 2]), eps).mean())
    p = model.p_mean_variance(x_t, 10, s=5)
    numbers: list[torch.Tensor] = [p.mean, p.var, p.log_var, p.x0, p.eps, min_snr_loss(model, x0)]
    print(numbers, p.variance)              # type: ignore[attr-defined]
    simple_loss(model)                      # type: ignore[call-arg]
    simple_loss(model, x0, eps=.5)          # type: ignore[arg-type]
    hybrid_loss(model, x0, lam='small')     # type: ignore[arg-type]
    q_sample(model.sched, 0., 10, eps)      # type: ignore[arg-type]
    return hybrid_loss(model, x0, lam=.001, y=torch.tensor([3, 4]))

def samples(model: Denoiser) -> torch.Tensor:
    taus: list[float] = timesteps(1000, 50, spacing='trailing')
    x_T = torch.randn(16, 1, 8, 8)
    generator = torch.Generator().manual_seed(0)
    for step in (DDPM('large'), DDPM(), DDIM(eta=.5), Heun(), DPMSolver(), UniPC()):
        x: torch.Tensor = sample(model, x_T, step, taus, generator=generator, progress=True)
        for t, x_t in trajectory(model, x, step, taus, y=torch.arange(16)): print(t, x_t)
    step, taus = sampler('dpmpp2m', model.sched, calls=10)
    sample(model, x_T, Heun(), timesteps(flow_schedule(), 10)[:-1])
    x = slerp(ddim_encode(model, x, taus), x_T, .5)
    timesteps(1000, '50')                   # type: ignore[arg-type]
    sample(model, x_T, step)                # type: ignore[call-arg]
    sample(model, 16, step, taus)           # type: ignore[arg-type]
    DDPM(variance=1)                        # type: ignore[arg-type]
    DDIM(eta='0')                           # type: ignore[arg-type]
    sampler('dpmpp2m', model.sched)         # type: ignore[call-arg]
    return draw(model, 16, (1, 8, 8), steps=50, seed=1)

def guided(model: Denoiser, classifier: nn.Module) -> torch.Tensor:
    free = ClassifierFreeGuidance(model, scale=2., interval=(100, 900))
    steered: Denoiser = ClassifierGuidance(free, classifier, scale=1.)
    ClassifierFreeGuidance(model)           # type: ignore[call-arg]
    ClassifierGuidance(classifier, classifier, 1.)                  # type: ignore[arg-type]
    return sample(steered, torch.randn(8, 1, 8, 8), DDPM(), [1000, 500, 0], y=torch.arange(8))

def training(model: Denoiser, folder: Path) -> Denoiser:
    run = train(model, load_data('digits', image_size=16), out=folder, steps=20, progress=False)
    print([row['loss'] for row in run.log], run.last.predicts)
    train(model, TensorData('mine', torch.zeros(9, 2)), cpu=True)
    train(model, 'digits')                  # type: ignore[arg-type]
    train(model)                            # type: ignore[call-arg]
    load_data('digits', unreadable='1')     # type: ignore[arg-type]
    print(run.loss)                         # type: ignore[attr-defined]
    save(folder/'mine.safetensors', run.model, step=20)
    save(folder/'mine.safetensors')         # type: ignore[call-arg]
    return load('digits', device='cpu')

def measured(model: Denoiser, x0: torch.Tensor) -> float:
    mixture = GaussianMixture([[0., 0.]], [[[1., 0.], [0., 1.]]], [1.])
    print(mixture.score(flow_schedule(), x0, .5), mixture.log_prob(x0), model.sched.prior_std)
    Denoiser(mixture.net(model.sched), model.sched)
    mixture.score(x0, x0, .5)               # type: ignore[arg-type]
    mixture.sample('9')                     # type: ignore[arg-type]
    bits: torch.Tensor = bits_per_dim(model, x0).total
    found = estimate_bits_per_dim(model, x0, calls=1000)
    print(bits.mean(), found.total + found.standard_error)
    print(bits_per_dim(model, x0).bits)     # type: ignore[attr-defined]
    frechet_distance(x0, 0.)                # type: ignore[arg-type]
    return frechet_distance(mixture.sample(9), x0)

def others(folder: Path) -> Denoiser:
    to_diffusers(from_diffusers(folder), folder, size=32)
    to_diffusers(pull('owner/name'), folder)
    to_onnx(pull('owner/name'), folder/'a.onnx', shape=(3, 32, 32))
    print(push(folder, 'owner/name').upper())
    to_diffusers(folder, folder, 32)        # type: ignore[arg-type]
    return from_guided_diffusion('64x64_diffusion.pt', **adm_flags['imagenet64'])

def modules() -> list[object]:
    import diffnb.sample as m
    from diffnb.sample import check_taus
    from diffnb import nothing_of_the_kind  # type: ignore[attr-defined]
    return [m.DDPM, m.sample, check_taus, nothing_of_the_kind]
