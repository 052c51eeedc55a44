#!/usr/bin/env python3
"""Run notebooks in place and store their outputs: execute.py [--slow] [--cuda] [notebook ...]

Run from the repository's root; without a name it runs every notebook under nbs/. Each one gets a
process of its own, with the notebook's folder as working directory, as nbdev_test does. Cells
marked `#| eval: false`, `#| slow` (without --slow) or `#| cuda` (without --cuda) and calls of
nbdev_export keep the outputs they have. stderr goes to the terminal and is not stored. At the first
cell that raises, the traceback is printed, the notebook on disk stays as it was, and the exit code
is 1. A second run changes no byte.
"""
import argparse, base64, io, os, re, subprocess, sys, time, traceback
from pathlib import Path
from fold import fold

def notebooks(root):
    "The notebooks under `root`, without files and folders that start with _ or ."
    return sorted(p for p in Path(root).rglob('*.ipynb')
                  if not any(q.startswith(('_', '.')) for q in p.parts))

def skipped(src, flags):
    "Is the cell with this source left alone, given the flags that were asked for?"
    directives = [re.sub(r'\s', '', line).lower()
                  for line in src.splitlines() if re.match(r'\s*#\s*\|', line)]
    return ('nbdev_export(' in src or '#|eval:false' in directives
            or any(f'#|{f}' in directives for f in {'slow', 'cuda'} - flags))

def smaller(png):
    "The same pixels in fewer bytes; base64 in and out."
    from PIL import Image
    image, out = Image.open(io.BytesIO(base64.b64decode(png))), io.BytesIO()
    image.save(out, 'png', optimize=True)
    return min((base64.b64encode(out.getvalue()).decode(), png), key=len)

def polish(nb):
    """Pictures in fewer bytes, each with the caption that follows it
    (an italic paragraph) as its text for those who cannot see it."""
    for cell, after in zip(nb.cells, [*nb.cells[1:], None]):
        caption = (re.match(r'\*([^*\n]+)\*(\n|$)', after.source) if after
                   and after.cell_type == 'markdown' else None)
        for o in cell.get('outputs') or []:
            if 'image/png' not in o.get('data', {}): continue
            o['data']['image/png'] = smaller(''.join(o['data']['image/png']).strip())
            if caption: o.setdefault('metadata', {})['image/png'] = {'alt': caption[1]}

def run_one(path, flags):
    "Execute the notebook at `path` in this process and write it back, cleaned; the exit code."
    from execnb.nbio import read_nb, write_nb
    from execnb.shell import CaptureShell
    from nbdev.clean import nbdev_clean
    path = path.resolve()
    nb = read_nb(path)
    os.chdir(path.parent)
    sys.path.insert(0, os.environ['DIFFNB_ROOT'])
    shell = CaptureShell(path, mpl_format='png')
    for i, cell in enumerate(nb.cells):
        if cell.cell_type != 'code' or skipped(cell.source, flags): continue
        outputs = shell.run(cell.source)
        for o in outputs:
            if o.get('name') == 'stderr':
                sys.stderr.write(f'{path.name}[{i}] {"".join(o["text"])}\n')
        if shell.exc:
            print(f'{path.name}[{i}] '
                  f'raised:\n{cell.source}\n\n{"".join(traceback.format_exception(shell.exc))}',
                  file=sys.stderr)
            return 1
        cell.outputs = [o for o in outputs if o.get('name') != 'stderr']
    polish(nb)
    fold(nb.cells)
    write_nb(nb, path)
    nbdev_clean(str(path))
    return 0

def main():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('notebook', nargs='*', type=Path, help='default: all under nbs/')
    ap.add_argument('--slow', action='store_true', help='run `#| slow` cells, too')
    ap.add_argument('--cuda', action='store_true', help='run `#| cuda` cells, too')
    ap.add_argument('--one', action='store_true', help=argparse.SUPPRESS)  # in this very process
    args = ap.parse_args()
    flags = [f for f in ('slow', 'cuda') if getattr(args, f)]
    if args.one: return run_one(args.notebook[0], set(flags))
    paths = args.notebook or notebooks('nbs')
    if missing := [str(p) for p in paths if not p.is_file()]:
        sys.exit(f'no such notebook: {", ".join(missing)}')
    if not paths: sys.exit('no notebook under nbs/ (run me from the root of the repository)')
    env = {'OMP_NUM_THREADS': '1', **os.environ, 'PYTHONHASHSEED': '0',
           'DIFFNB_ROOT': str(Path(__file__).resolve().parents[1])}
    env.pop('MPLBACKEND', None)  # the shell draws inline
    for p in paths:
        start = time.time()
        cmd = [sys.executable, __file__, '--one', *(f'--{f}' for f in flags), str(p)]
        if subprocess.run(cmd, env=env).returncode:
            sys.exit(f'{p}: failed after {time.time() - start:.1f} s, not written')
        print(f'{p}: {time.time() - start:.1f} s', flush=True)

if __name__ == '__main__': sys.exit(main())
