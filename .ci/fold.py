#!/usr/bin/env python3
"""Fold the code that a lesson does not need in sight: fold.py [--check] [NB ...]

Folded are the code cells of the sections Checks and Answers, and those marked `#| fold`
(figures, machinery). JupyterLab hides their source by `jupyter.source_hidden`, Colab by `cellView`.
Writes the notebooks whose marks are wrong; --check names them instead, and exits with 1.
"""
import json, re, sys
from pathlib import Path

FOLDED = dict(jupyter=dict(source_hidden=True), cellView='form')

def headings(source):
    "The headings of a Markdown cell, outside of fenced code."
    return re.findall(r'(?m)^#+ +(.+?)\s*$', re.sub(r'(?ms)^```.*?^```', '', source))

def folds(cells):
    "For each cell: is its code folded?"
    aside = False
    for cell in cells:
        source = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown':
            for heading in headings(source):
                aside = re.match(r'(Checks|Answers)\b', heading) is not None
        marked = re.search(r'(?m)^#\|\s*fold\s*$', source)
        yield cell['cell_type'] == 'code' and bool(aside or marked)

def fold(cells):
    "Mark the cells of a notebook, in place."
    for cell, folded in zip(cells, list(folds(cells))):
        kept = {k: v for k, v in cell['metadata'].items() if k not in FOLDED}
        cell['metadata'] = kept | (FOLDED if folded else {})

def main():
    check = '--check' in sys.argv
    paths = [Path(p) for p in sys.argv[1:] if p != '--check'] or sorted(Path('nbs').glob('*.ipynb'))
    wrong = []
    for path in paths:
        text = path.read_text(encoding='utf-8')
        nb = json.loads(text)
        fold(nb['cells'])
        now = json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + '\n'
        if json.loads(now) == json.loads(text): continue
        wrong.append(f'{path}: cells that should be folded are not, or the other way round')
        if not check: path.write_text(now, encoding='utf-8')
    if check and wrong: sys.exit('\n'.join(wrong) + '\nrun: python .ci/fold.py')

if __name__ == '__main__': main()
