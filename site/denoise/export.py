"""Writes weights.js, what index.html needs to run by itself:  python export.py [FOLDER]
(FOLDER: where the page lies; this one if none)"""
import base64, json, sys
from pathlib import Path
import torch
from diffnb.checkpoint import load
from diffnb.onnx import to_onnx

MODEL = 'digits_cond'                     # a shipped model that takes a label, or none
# what denoise.js computes; other settings are refused
SUPPORTED = dict(scale_shift=False, resample='conv', rescale=False, down_padding=1, freq_shift=0,
                 time_offset=0, time_scale=1., label_required=False, picture_channels=0)

def packed(x) -> str: # a tensor -> base64 of its numbers, little endian
    "The bytes of a tensor as text."
    x = x.detach().numpy()
    return base64.b64encode(x.astype(x.dtype.newbyteorder('<')).tobytes()).decode()

# a Denoiser -> x [2, 1, 8, 8], t, y and what torch's network makes of them
def reference(model) -> dict:
    "A case for the page to check itself on: one picture with a label, one without."
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([700, 40])
    y = torch.tensor([3, -1])
    with torch.no_grad(): output = model.net(x, t, y=y)
    return dict(x=packed(x), t=t.tolist(), y=y.tolist(), output=packed(output))

def export(folder) -> Path: # the folder of index.html -> the file written
    """The model as an ONNX file, and the same file in a script that sets `shipped`, as a page on a
    disk may read no other files; and a reference case."""
    model = load(MODEL)
    config = model.net.config
    for key, value in SUPPORTED.items():
        if config[key] != value:
            raise ValueError(f"denoise.js computes networks with {key} = {value!r}, but {MODEL} "
                             f"has {config[key]!r}")
    if model.predicts != 'eps':
        raise ValueError(
            f"denoise.js takes the output for noise, but {MODEL} predicts {model.predicts}")
    file, path = Path(folder)/f'{MODEL}.onnx', Path(folder)/'weights.js'
    to_onnx(model, file)
    shipped = dict(name=MODEL, onnx=base64.b64encode(file.read_bytes()).decode(),
                   reference=reference(model))
    path.write_text(
        f"// written by export.py from diffnb's {MODEL}\nconst shipped = {json.dumps(shipped)};\n")
    return path

if __name__ == '__main__':
    path = export(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    print(f"{path}: {path.stat().st_size/1e6:.2f} MB")
