#!/usr/bin/env python3
"""A small picture of each chapter for the table on the front page: thumbnails.py [NB...]

The stored figure with the most pixels in which colour varies, scaled to fit;
nbs/thumbnails/NN_topic.png. Made anew by hand when a chapter's figures change.
"""
import base64, io, sys
from pathlib import Path
import nbformat
import numpy as np
from PIL import Image

size = (192, 112)                     # of a cell in the table

def figures(path):
    "The PNG outputs of a notebook as images."
    for cell in nbformat.read(path, as_version=4).cells:
        for out in cell.get('outputs', []):
            if 'image/png' in out.get('data', {}):
                yield Image.open(io.BytesIO(base64.b64decode(out['data']['image/png']))).convert(
                    'RGB')

def thumbnail(image):
    "Scaled to fit, on white."
    image.thumbnail(size, Image.LANCZOS)
    page = Image.new('RGB', size, 'white')
    page.paste(image, ((size[0] - image.width)//2, (size[1] - image.height)//2))
    return page.quantize(64)

def ink(image): # how much of it is drawn, favouring the shape of the frame
    pixels, shape = np.asarray(image.resize((64, 64))).astype(int), image.width/image.height
    return (((np.ptp(pixels, axis=2) > 30) | (pixels.max(2) < 100)).sum()) * min(
        shape/1.7, 1.7/shape)

for name in sys.argv[1:] or sorted(map(str, Path('nbs').glob('[0-9]*.ipynb'))):
    found, out = list(figures(name)), Path('nbs/thumbnails')/f'{Path(name).stem}.png'
    if not found:
        print(f'{name}: no figure')
        continue
    out.parent.mkdir(exist_ok=True)
    thumbnail(max(found, key=ink)).save(out, optimize=True)
