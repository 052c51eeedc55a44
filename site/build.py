#!/usr/bin/env python3
"""Make the site: python site/build.py [folder]

From the notebooks as they are stored (nothing is executed) and the modules as they are written
(nothing is imported, but for the page that denoises: its weights come out of the package), into
_site unless another folder is named. Any warning is an error. Needs `pip install -e '.[site]'`.
"""
import json, shutil, subprocess, sys, tempfile, time
from importlib.metadata import files
from pathlib import Path

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root/'site'))
import api, notebooks

def landing(index, names, shorts, has_try):
    "The landing page: index.ipynb, with doors below its first figure and the tree of all pages."
    cut = index.index('## ')                    # the first section
    doors = [f'<a href="{names[0]}.html">Start here: diffusion on one page</a>',
             '<a href="api/index.html">Look a function up</a>']
    if has_try: doors.insert(1, '<a href="denoise/index.html">Try it: denoise a digit here</a>')
    text = f'{index[:cut]}<p class="doors">{" ".join(doors)}</p>\n\n{index[cut:]}'
    parts = {}
    for n in names:
        decade = int(n.split('_')[0])//10
        part = notebooks.PARTS.get(decade, f'Part {decade}')
        parts.setdefault(part, []).append(f'{shorts[n]} <{n}>')
    for caption, entries in parts.items():
        text += '\n\n```{toctree}\n:hidden:\n:caption: %s\n\n%s\n```' % (
            caption, '\n'.join(entries))
    pages = 'api/index\nCONTRIBUTING\nCHANGELOG'
    return text + f'\n\n```{{toctree}}\n:hidden:\n:caption: Reference\n\n{pages}\n```\n'

def stage(here):
    "Write what Sphinx reads into the folder `here`."
    shutil.copytree(root/'site/static', here/'_static')
    shutil.copytree(root/'site/templates', here/'templates')
    for name in ('conf.py', 'site_styles.py'): shutil.copy(root/'site'/name, here)
    # one file, from this machine
    mathjax = next(f for f in files('sphinx-mathjax-offline')
                   if str(f).endswith('mathjax/tex-svg.js'))
    shutil.copy(mathjax.locate(), here/'_static')
    (here/'extra/notebooks').mkdir(parents=True)
    demo = root/'site/denoise'
    has_try = (demo/'index.html').exists()
    if has_try:
        shutil.copytree(demo, here/'extra/denoise',
                        ignore=shutil.ignore_patterns('*.py', '__pycache__', '.*', '*.md'))
        # the weights, for a browser
        subprocess.run([sys.executable, demo/'export.py', here/'extra/denoise'], check=True)
    shutil.copytree(root/'nbs/thumbnails', here/'thumbnails')
    for name in ('CONTRIBUTING.md', 'CHANGELOG.md'): shutil.copy(root/name, here)

    pages = {p.stem: notebooks.read(p) for p in notebooks.chapters(root/'nbs')}
    index = notebooks.read(root/'nbs/index.ipynb')
    ledger, modules = notebooks.equations(pages), api.modules(root/'diffnb')
    exported = {m: api.exported(tree) for m, (tree, _) in modules.items()}
    titles = {n: notebooks.plain(notebooks.title(cells)) for n, cells in pages.items()}
    shorts = ({n: titles[n].partition(':')[0] for n in pages}
              | {n: t for n, t in notebooks.short_titles(index).items() if n in pages})
    links, of_module = {}, {}
    for name, cells in {**pages, 'index': index}.items():
        page = notebooks.Page(name, cells, ledger, exported, here/'_static/figures')
        text = page.markdown()
        if name == 'index': text = landing(text, list(pages), shorts, has_try)
        else:
            shutil.copy(root/f'nbs/{name}.ipynb', here/'extra/notebooks')
            text += (
                f'\n<p class="colophon">This page is the notebook <a href="notebooks/{name}.ipynb" '
                f'download>{name}.ipynb</a>, with its outputs as stored.</p>\n')
            if page.module: of_module[page.module] = name
        (here/f'{name}.md').write_text(text, encoding='utf-8')
        links[name] = page.links
    (here/'links.json').write_text(json.dumps(links), encoding='utf-8')

    (here/'api').mkdir()
    rows = []
    for name, (tree, source) in modules.items():
        module = api.Module(name, tree, source, of_module.get(name),
                            titles.get(of_module.get(name)), ledger)
        (here/f'api/{name}.md').write_text(module.markdown(), encoding='utf-8')
        rows.append(module)
    rows.sort(key=lambda m: m.notebook or '')
    table = '\n'.join(f'| [diffnb.{m.name}]({m.name}.md) | {api.escape(m.claim)} |' for m in rows)
    tree = '\n'.join(f'diffnb.{m.name} <{m.name}>' for m in rows)
    (here/'api/index.md').write_text(
        '# Reference\nA page for each module, in the order of the chapters that they come from: '
        'signatures, what each parameter is, and where '
        'it is derived. A number such as E5 leads to the equation.\n\n| module | in one sentence '
        f'|\n| --- | --- |\n{table}\n\n```{{toctree}}\n:hidden:\n\n{tree}\n```\n', encoding='utf-8')
    return len(pages), len(modules)

def main(dest='_site'):
    from sphinx.cmd.build import main as sphinx
    start, dest = time.time(), Path(dest).resolve()
    if dest.exists() and any(dest.iterdir()) and not (dest/'_static/site.css').exists():
        sys.exit(f'{dest} holds something else: name an empty folder')
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        chapters, modules = stage(here)
        out = here/'_out'
        if status := sphinx(['-q', '-W', '--keep-going', '-b', 'html', '-d', str(here/'_trees'),
                             str(here), str(out)]):
            sys.exit(status)
        for name in ('.buildinfo', 'objects.inv'): (out/name).unlink(missing_ok=True)
        (out/'.nojekyll').touch()
        shutil.rmtree(dest, ignore_errors=True)
        shutil.copytree(out, dest)
    print(f'{dest}: {chapters} chapters, {modules} modules, in {time.time() - start:.0f} s')

if __name__ == '__main__': main(*sys.argv[1:])
