"""Notebooks as pages: what a reader should see of a stored notebook, as Markdown for Sphinx.
Nothing is executed."""
import ast, base64, html, json, re, struct, sys
from pathlib import Path
from urllib.parse import unquote

sys.path.insert(0, str(Path(__file__).resolve().parents[1]/'.ci'))
from fold import folds

# by decade; a decade that is not here is "Part N"
PARTS = {0: 'Start', 1: 'The chain', 2: 'Learning', 3: 'Scores and flows', 4: 'Steering',
         5: 'Faster and larger', 6: 'Judging', 7: 'Looking back', 8: 'Workshop', 9: 'Workshop'}
DIRECTIVE = re.compile(r'^[ \t]*#[ \t]*\|[ \t]*(.*?)[ \t]*$\n?', re.M)
# neither bare prose nor split
ASIDE = re.compile(
    r'(^```.*?^```[^\n]*$|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]+\$|^#[^\n]*|!?\[[^\]\n]*\]\([^)\n]*\))',
    re.M | re.S)

def chapters(folder):
    "The notebooks of the course, in order."
    return sorted(p for p in Path(folder).glob('[0-9]*_*.ipynb'))

def read(path):
    "The cells of the notebook at `path`, each with its source as one string."
    cells = json.loads(Path(path).read_text(encoding='utf-8'))['cells']
    for c, folded in zip(cells, list(folds(cells))):
        c['source'], c['folded'] = ''.join(c['source']), folded
    return cells

def title(cells):
    "The first heading."
    for c in cells:
        if c['cell_type'] == 'markdown' and (m := re.search(r'^# +(.+?)\s*$', c['source'], re.M)):
            return m[1]
    raise ValueError('a notebook without a title')

def short_titles(index):
    "What the landing page calls each chapter: {'22_ddim': 'DDIM', ...}."
    text = '\n'.join(c['source'] for c in index if c['cell_type'] == 'markdown')
    return {m[2]: m[1]
            for m in re.finditer(r'^\|[^\n]*?\[([^\]]+)\]\((\d\w+)\.ipynb\)', text, re.M)}

def equations(pages):
    """{'E26': {'22_ddim', ...}}:
    the pages on which an equation of the ledger is displayed, in order."""
    found = {}
    for name, cells in pages.items():
        for c in cells:
            if c['cell_type'] == 'markdown':
                for tag in re.findall(r'\\tag\{(\w+)\}', c['source']):
                    found.setdefault(tag, {})[name] = True
    return found

def directives(source):
    "The nbdev directives of a cell, and the source without them."
    return ({re.sub(r'\s', '', d).lower() for d in DIRECTIVE.findall(source)},
            DIRECTIVE.sub('', source).strip('\n'))

def parsed(source):
    try: return ast.parse(source)
    except SyntaxError: return None          # magics

def only_imports(source):
    tree = parsed(source)
    return (bool(tree and tree.body)
            and all(isinstance(s, (ast.Import, ast.ImportFrom)) for s in tree.body))

def defined(source):
    "The names that a cell defines at its top level."
    tree = parsed(source)
    names = []
    for s in tree.body if tree else []:
        if isinstance(s, (ast.FunctionDef, ast.ClassDef)): names.append(s.name)
        elif isinstance(s, ast.Assign):
            names += [t.id for t in s.targets if isinstance(t, ast.Name)]
    return names

def words(node):
    "The text of a string, of an f-string (… for what is computed) or of a list of them."
    if isinstance(node, ast.Constant) and isinstance(node.value, str): return [node.value]
    if isinstance(node, ast.JoinedStr):
        return [''.join(p.value if isinstance(p, ast.Constant) else '…' for p in node.values)]
    if isinstance(node, (ast.List, ast.Tuple)): return sum(map(words, node.elts), [])
    if isinstance(node, ast.ListComp): return words(node.elt)
    return []

def alt_text(source, section):
    "What a figure shows, from the titles, axes and curves that its cell names."
    kinds = {'titles': [], 'axes': [], 'curves': []}
    def add(kind, node):
        for w in words(node):
            w = ' '.join(re.sub(r'[$\\{}]|mathrm|mathbf|text\b', '', w).split())
            if w.strip('… ') and w not in kinds[kind]: kinds[kind].append(w)
    for node in ast.walk(parsed(source) or ast.Module([], [])):
        if not isinstance(node, ast.Call): continue
        called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, 'attr', '')
        options = {k.arg: k.value for k in node.keywords}
        for k in ('titles', 'title', 'names'):
            if k in options: add('titles', options[k])
        if called == 'filmstrip' and len(node.args) > 1: add('titles', node.args[1])
        if called == 'filmstrip' and len(node.args) > 2: add('titles', node.args[2])
        if called in ('set_title', 'suptitle') and node.args: add('titles', node.args[0])
        if called in ('set_xlabel', 'set_ylabel', 'colorbar') and node.args:
            add('axes', node.args[0])
        if called == 'label':
            for a in node.args[1:3]: add('axes', a)
        for k in ('x', 'y', 'xlabel', 'ylabel'):
            if k in options: add('axes', options[k])
        if called == 'curve' and len(node.args) > 4: add('curves', node.args[4])
        if 'label' in options: add('curves', options['label'])
    said = [f"{k}: {', '.join(v)}" for k, v in kinds.items() if v]
    return f"Figure on “{section}”" + (f" ({'; '.join(said)})" if said else '')

def plain(heading):
    return ' '.join(re.sub(r'[$`*\\]|\[([^\]]*)\]\([^)]*\)', r'\1', heading).split())

class Page:
    "A notebook on its way to Markdown."
    def __init__(self, name, cells, ledger, modules, figures):
        self.name, self.cells, self.ledger, self.figures = name, cells, ledger, Path(figures)
        marks = [directives(c['source'])[0] for c in cells if c['cell_type'] == 'code']
        exp = [d for d in set().union(*marks) if d.startswith('default_exp')]
        self.module = exp[0].removeprefix('default_exp') if exp else None
        self.public, self.count = set(modules.get(self.module, ())), 0
        self.section = plain(title(cells))
        self.links = self.names_in_code(modules)

    def prose(self, text):
        "Links to notebooks become links to pages, and the ledger's numbers links to the equations."
        def link(m):
            label, page, rest = m[1], m[2], m[3] or ''
            if page and page in self.ledger.get(label, ()):
                return f'<a href="{page}.html#{label}">{label}</a>'
            place = re.sub(r'[^#\w-]', '', unquote(rest).lower())     # a notebook says #The-place?
            return f'[{label}]({page + ".md" if page else ""}{place})'
        def number(m):
            pages = self.ledger.get(m[0])
            if not pages: return m[0]
            page = '' if self.name in pages else f'{next(iter(pages))}.html'
            return f'<a class="equation" href="{page}#{m[0]}">{m[0]}</a>'
        def outside(part): return re.sub(r'(?<![\w\\/#])[EB]\d+(?!\w)', number, part)
        def aside(part):
            # a paragraph of its own
            if part.startswith('$$'): return f"\n\n$$\n{part.strip('$').strip()}\n$$\n\n"
            if m := re.fullmatch(r'\$\\tag\{(\w+)\}\$', part):
                return f'<span id="{m[1]}">({m[1]})</span>'
            if (m := re.fullmatch(r'`(\w+)`', part)) and m[1] in self.links:
                return f'<a href="{self.links[m[1]]}"><code class="literal">{m[1]}</code></a>'
            return re.sub(r'^\[([^\]]*)\]\((?:(\w+)\.ipynb)?(#[^)]*)?\)$', link, part)
        # the pages that stand beside README.md stand beside the chapters here
        parts = ASIDE.split(re.sub(r'\]\(\.\./(\w+\.md)\)', r'](\1)', text))
        return ''.join(aside(p) if i % 2 else outside(p) for i, p in enumerate(parts))

    def output(self, o, source):
        data = o.get('data', {})
        if o['output_type'] == 'stream': return self.text(o['text'])
        if 'image/png' in data:
            self.count += 1
            png = base64.b64decode(''.join(data['image/png']))
            width, height = struct.unpack('>II', png[16:24])
            file = self.figures/f'{self.name}_{self.count}.png'
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(png)
            alt = html.escape(alt_text(source, self.section))
            small = ' small' if width <= 520 else ''          # fits a phone
            return (f'<div class="picture{small}"><img src="_static/figures/{file.name}" '
                    f'alt="{alt}" width="{width}" height="{height}" '
                    f'style="--natural: {width}px"></div>')
        if 'text/latex' in data:
            return '$$\n' + ''.join(data['text/latex']).strip().strip('$') + '\n$$'
        if 'text/markdown' in data: return self.prose(''.join(data['text/markdown']))
        if 'text/html' in data:
            raise ValueError(f'{self.name}: an output in HTML; teach the site to show it')
        return self.text(data.get('text/plain', ''))

    def text(self, t):
        t = ''.join(t).rstrip('\n')
        return f'<pre class="output" tabindex="0">{html.escape(t)}</pre>' if t.strip() else ''

    def code(self, c):
        "A code cell, with the file it belongs to where it is part of the library."
        marks, source = directives(c['source'])
        if 'hide' in marks or not source: return ''
        fence = '`' * max(3, 1 + max((len(m) for m in re.findall(r'`+', source)), default=0))
        exported = bool(marks & {'export', 'exports'})
        kind, note = ('exported', '') if exported else ('check', '')
        if exported and self.module:
            names = [n for n in defined(source) if n in self.public]
            target = (f'api/{self.module}.html' + (f'#diffnb.{self.module}.{names[0]}'
                                                   if names else ''))
            note = f'<a class="library" href="{target}">diffnb.{self.module}</a>'
        elif 'slow' in marks: note = '<span class="library">takes long: its stored result</span>'
        shown = [] if 'echo:false' in marks else [f'{fence}python\n{source}\n{fence}']
        outputs = [] if 'output:false' in marks else [self.output(o, source) for o in c['outputs']]
        outputs = [o for o in outputs if o]
        start = f'<div class="cell {kind}" id="cell-{c["id"]}">{note}'
        if c['folded']:
            inside = shown + (outputs if self.aside else [])
            outside = [] if self.aside else outputs
            start = start.replace('"cell', '"cell folded', 1)
            inside = [f'<details><summary>{self.summary(source, exported, outputs)}</summary>',
                      *inside, '</details>']
            return '\n\n'.join([start, *inside, *outside, '</div>'])
        return '\n\n'.join([start, *shown, *outputs, '</div>'])

    @property
    def aside(self):
        "Is this a section that a reader opens only on purpose?"
        return re.match(r'(Checks|Answers)\b', self.section) is not None

    def summary(self, source, exported, outputs):
        "What a folded cell says on its lid."
        lead = re.match(r'#+ (.+)', re.sub(r'(?m)^# (proves )?[EXB]\d.*\n', '', source))
        if exported:
            names = ', '.join(f'<code>{n}</code>' for n in defined(source) if n in self.public)
            return f'Code of the library: {names}' if names else 'Code of the library'
        if lead: return html.escape(lead[1])
        if any('<img' in o for o in outputs): return 'Code of the figure'
        return self.section if self.aside else 'Code'

    def markdown(self):
        "The whole page."
        imports = ['\n'.join(directives(c['source'])[1].splitlines())
                   for c in self.cells if c['cell_type'] == 'code'
                   and directives(c['source'])[0] & {'hide', 'export'}
                   and only_imports(directives(c['source'])[1])]
        parts = []
        for c in self.cells:
            if c['cell_type'] == 'markdown':
                parts.append(self.prose(c['source']))
                if heads := re.findall(r'^#+ +(.+)$', c['source'], re.M):
                    self.section = plain(heads[-1])
            elif c['cell_type'] == 'code':
                marks, source = directives(c['source'])
                if marks & {'hide', 'export'} and only_imports(source):
                    if imports and self.module:
                        joined = '\n\n'.join(imports)
                        parts.append('<details class="imports"><summary>Imports of this '
                                     f'chapter</summary>\n\n```python\n{joined}\n```\n\n</details>')
                        imports = []
                else: parts.append(self.code(c))
        return '\n\n'.join(p for p in parts if p) + '\n'

    def names_in_code(self, modules):
        """Where in the reference a name in this page's code leads:
        imported or defined here, and never the name of something else."""
        known = {n: f'api/{self.module}.html#diffnb.{self.module}.{n}' for n in self.public}
        others = set()
        for c in self.cells:
            marks, source = directives(c['source']) if c['cell_type'] == 'code' else ((), '')
            tree = parsed(source) or ast.Module([], [])
            for n in ast.walk(tree):
                if (isinstance(n, ast.ImportFrom)
                        and (m := (n.module or '').removeprefix('diffnb.')) in modules
                        and n.module.startswith('diffnb.')):
                    known.update({a.asname or a.name: f'api/{m}.html#diffnb.{m}.{a.name}'
                                  for a in n.names if a.name in modules[m]})
                elif isinstance(n, ast.arg): others.add(n.arg)
                elif (isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
                      and not (marks and n.id in self.public)):
                    others.add(n.id)
                elif isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name not in self.public:
                    others.add(n.name)
        return {n: t for n, t in known.items() if n not in others}
