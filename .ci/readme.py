#!/usr/bin/env python3
"""Make README.md from nbs/index.ipynb as it is stored: readme.py [notebook [folder of README.md]]

`#| hide` cells are left out, directive lines too; `#| echo: false` leaves only the output, `#|
output: false` only the source. Links are written for a reader at the root. Figures go to
nbs/index_files.
"""
import os, re, shutil, sys
from pathlib import Path
import nbformat
from nbconvert import MarkdownExporter

NOTE = '<!-- Made from nbs/index.ipynb by .ci/readme.py: edit the notebook. -->\n\n'
DIRECTIVE = re.compile(r'^\s*#\s*\|\s*(.*?)\s*$', re.M)

def relink(text, folder):
    """The Markdown `text` with its relative links, outside
    of code, leading from `folder` instead of from here."""
    def link(m):
        target = m[2]
        if re.match(r'[a-z][a-z0-9+.-]*:|[/#]', target, re.I): return m[0]
        path, mark, rest = target.partition('#')
        return m[1] + os.path.normpath(f'{folder}/{path}').replace(os.sep, '/') + mark + rest
    parts = re.split(r'(^```.*?^```[^\n]*$|`[^`\n]*`)', text, flags=re.M | re.S)
    return ''.join(p if i % 2 else re.sub(r'(\]\(|\bsrc="|\bhref=")([^)\s"]+)', link, p)
                   for i, p in enumerate(parts))

def prepare(nb, folder):
    "Keep of `nb` what a reader should see."
    cells = []
    for c in nb.cells:
        directives = ({re.sub(r'\s', '', d).lower() for d in DIRECTIVE.findall(c.source)}
                      if c.cell_type == 'code' else set())
        if c.cell_type == 'markdown': c.source = relink(c.source, folder)
        if c.cell_type == 'code':
            if directives & {'hide', 'include:false'}: continue
            c.source = DIRECTIVE.sub('', c.source).strip('\n')
            if 'echo:false' in directives: c.source = ''
            if 'output:false' in directives: c.outputs = []
            if not c.source and not c.outputs: continue
        cells.append(c)
    nb.cells = cells

def main(notebook='nbs/index.ipynb', dest='.'):
    notebook, dest = Path(notebook), Path(dest)
    nb, folder = nbformat.read(notebook, as_version=4), notebook.parent.name
    figures = f'{folder}/{notebook.stem}_files'
    nb.metadata.language_info = {'name': 'python'}
    prepare(nb, folder)
    text, res = MarkdownExporter().from_notebook_node(
        nb, resources=dict(unique_key=notebook.stem, output_files_dir=figures))
    text = re.sub(r'^```python\s+```$', '', text, flags=re.M)       # what `echo: false` left
    text = re.sub(r'^!\[png\]', f'![Figure made by {folder}/{notebook.name}]', text, flags=re.M)
    text = re.sub(r'^[ \t]+$', '', text, flags=re.M)       # blank lines of indented outputs
    shutil.rmtree(dest/figures, ignore_errors=True)
    for name, data in res['outputs'].items():
        (dest/name).parent.mkdir(parents=True, exist_ok=True)
        (dest/name).write_bytes(data)
    (dest/'README.md').write_text(NOTE + re.sub(r'\n{3,}', '\n\n', text).strip() + '\n',
                                  encoding='utf-8')

if __name__ == '__main__': main(*sys.argv[1:])
