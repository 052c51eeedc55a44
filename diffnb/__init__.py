"""Diffusion models from their equations: the names a user needs first, imported when asked for."""

import sys

__version__ = "0.1.0"
TYPE_CHECKING = False   # True for a type checker, as in typing, whose import would cost more

if TYPE_CHECKING:
    from .schedule import NoiseSchedule as NoiseSchedule, Schedule as Schedule
    from .schedule import linear_schedule as linear_schedule, cosine_schedule as cosine_schedule
    from .schedule import ladder_schedule as ladder_schedule, zero_snr as zero_snr
    from .schedule import geometric_schedule as geometric_schedule, flow_schedule as flow_schedule
    from .schedule import edm_schedule as edm_schedule, vp_schedule as vp_schedule
    from .schedule import named_schedule as named_schedule
    from .forward import q_sample as q_sample
    from .oracle import GaussianMixture as GaussianMixture
    from .distance import frechet_distance as frechet_distance
    from .posterior import q_posterior as q_posterior
    from .denoiser import Denoiser as Denoiser
    from .loss import simple_loss as simple_loss, hybrid_loss as hybrid_loss, vlb_loss as vlb_loss
    from .loss import score_loss as score_loss, min_snr_loss as min_snr_loss
    from .sample import DDPM as DDPM, timesteps as timesteps
    from .sample import trajectory as trajectory, sample as sample, draw as draw
    from .unet import UNet as UNet, EncoderUNet as EncoderUNet, MLP as MLP
    from .data import TensorData as TensorData, load_data as load_data
    from .checkpoint import save as save, load as load
    from .train import train as train
    from .ddim import DDIM as DDIM, slerp as slerp, ddim_encode as ddim_encode
    from .solvers import Heun as Heun, DPMSolver as DPMSolver, UniPC as UniPC, sampler as sampler
    from .guidance import ClassifierGuidance as ClassifierGuidance
    from .guidance import ClassifierFreeGuidance as ClassifierFreeGuidance
    from .adm import adm_flags as adm_flags
    from .pretrained import from_guided_diffusion as from_guided_diffusion
    from .pretrained import from_improved_diffusion as from_improved_diffusion
    from .pretrained import from_diffusers as from_diffusers, to_diffusers as to_diffusers
    from .hub import push as push, pull as pull
    from .onnx import to_onnx as to_onnx
    from .likelihood import bits_per_dim as bits_per_dim
    from .likelihood import estimate_bits_per_dim as estimate_bits_per_dim
else:
    def _from(module, names): return dict.fromkeys(names.split(), module)

    _home = {               # name -> module; the same names as above
        **_from('schedule', 'NoiseSchedule Schedule linear_schedule cosine_schedule'),
        **_from('schedule', 'ladder_schedule geometric_schedule flow_schedule edm_schedule'),
        **_from('schedule', 'vp_schedule zero_snr named_schedule'),
        **_from('forward', 'q_sample'),
        **_from('oracle', 'GaussianMixture'),
        **_from('distance', 'frechet_distance'),
        **_from('posterior', 'q_posterior'),
        **_from('denoiser', 'Denoiser'),
        **_from('loss', 'simple_loss hybrid_loss vlb_loss score_loss min_snr_loss'),
        **_from('sample', 'DDPM timesteps trajectory sample draw'),
        **_from('unet', 'UNet EncoderUNet MLP'),
        **_from('data', 'TensorData load_data'),
        **_from('checkpoint', 'save load'),
        **_from('train', 'train'),
        **_from('ddim', 'DDIM slerp ddim_encode'),
        **_from('solvers', 'Heun DPMSolver UniPC sampler'),
        **_from('guidance', 'ClassifierGuidance ClassifierFreeGuidance'),
        **_from('adm', 'adm_flags'),
        **_from('pretrained', 'from_guided_diffusion from_improved_diffusion'),
        **_from('pretrained', 'from_diffusers to_diffusers'),
        **_from('hub', 'push pull'),
        **_from('onnx', 'to_onnx'),
        **_from('likelihood', 'bits_per_dim estimate_bits_per_dim')}
    __all__ = list(_home)

    def __getattr__(name):
        if name not in _home: raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module
        found = getattr(import_module(f'{__name__}.{_home[name]}'), name)
        setattr(sys.modules[__name__], name, found)
        return found

    def __dir__(): return sorted({*globals(), *__all__})

    _Module = type(sys)

    class _Package(_Module):
        "Here `sample` and `train` are the functions, also after an import of the modules."
        def __setattr__(self, name, value):
            # Python binds an imported module to its name in the package. Bind the function instead,
            # and give it the module's names: `import diffnb.sample as m; m.DDPM` works as well
            if _home.get(name) == name and isinstance(value, _Module):
                module, value = value, getattr(value, name)
                vars(value).update((each, getattr(module, each)) for each in module.__all__)
            super().__setattr__(name, value)

    sys.modules[__name__].__class__ = _Package
