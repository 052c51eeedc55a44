"""The equations of the course, read off its chapters: each with its functions and its checks.

nbs/71_equations.ipynb explains the rules, tests them and shows what they find.
"""
import ast, json, re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

ledger = {                                  # id: what it says
    'E1': 'one step of noise',
    'E2': 'all steps at once',
    'E3': 'the end is pure noise',
    'E4': 'Langevin dynamics',
    'E5': 'the reverse chain',
    'E6': "the posterior by Bayes' rule",
    'E7': "the posterior's mean and variance",
    'E8': 'clean image and mean from the noise',
    'E9': 'the bound, by a divergence',
    'E10': "the bound, by Jensen's inequality",
    'E11': 'the bound, step by step',
    'E12': 'divergence of two Gaussians; the decoder',
    'E13': 'what the network predicts',
    'E14': 'a term of the bound is a squared error',
    'E15': 'the simple loss',
    'E16': 'training and sampling, Algorithms 1 and 2',
    'E17': 'score matching',
    'E18': 'no data, no score',
    'E19': 'the linear schedule',
    'E20': 'the cosine schedule',
    'E21': 'the fixed variances',
    'E22': 'the learned variance',
    'E23': 'the hybrid loss',
    'E24': 'importance sampling of times',
    'E25': 'strided sampling',
    'E26': 'a family with the same marginals',
    'E27': 'the DDIM step',
    'E28': 'DDIM on a subset of times',
    'E29': 'latents: encoding and interpolation',
    'E30': 'the third noise',
    'E31': 'classifier guidance',
    'E32': "ADM's U-Net",
    'E33': 'bits per dimension; Fréchet distance',
    'E34': 'the cost of sampling',
    'E35': 'four families side by side',
    'E36': 'the swiss roll and its drift',
    'E37': 'stochastic differential equations'}

errata = {                                  # id: printed, corrected (LaTeX), and what decides
    'X1': (r'\bar\alpha_t=\prod_{i=1}^{T}\alpha_i', r'\bar\alpha_t=\prod_{i=1}^{t}\alpha_i',
           'the squared mean of the chain at t, step by step'),
    'X2': (r'x+\tfrac\epsilon2\nabla p(x)+\sqrt\epsilon\,z',
           r'x+\tfrac\epsilon2\nabla\log p(x)+\sqrt\epsilon\,z',
           'the change of the mean square at the distribution p itself, which is 0'),
    'X3': (r'\frac{\sqrt{\bar\alpha_t}}{1-\bar\alpha_t}x_0',
           r'\frac{\sqrt{\bar\alpha_{t-1}}}{1-\bar\alpha_{t-1}}x_0',
           "the mean of the posterior, by integrating Bayes' rule"),
    'X4': (r'\frac{\Vert\tilde\mu-\mu_\theta\Vert^2}{2\Vert\Sigma_\theta\Vert_2^2}',
           r'\frac{\Vert\tilde\mu-\mu_\theta\Vert^2}{2\sigma_t^2}',
           'the divergence of the two Gaussians, from torch'),
    'X5': (r'f(t)=\cos(\cdot)', r'f(t)=\cos^2(\cdot)', 'the table of ᾱ in diffusers'),
    'X6': (r'\sigma_t^2=\eta\tilde\beta_t', r'\sigma_t=\eta\sqrt{\tilde\beta_t}',
           'the noise of a step of diffusers at η = 0.5, in units of that at η = 1'),
    'X7': (r'\bar\alpha_{t-1}', r'\bar\alpha_{\tau_{i-1}}',
           'where a step from 500 to 400 must arrive, if the network is right'),
    'X8': (r'\hat\sigma=\sigma(\eta=1)',
           r'\hat\sigma^2=1-\bar\alpha_{\tau_i}/\bar\alpha_{\tau_{i-1}}',
           'the variance that the chain adds from 100 to 200, step by step (relative)'),
    'X9': (r'\text{slided}', r'\text{sliced}',
           'the trace of a matrix, from slices vᵀJv along random v')}


# Reading a chapter

class Cell(NamedTuple):
    "A cell of a chapter, or the part of a prose cell under one heading."
    code: bool                  # code or prose?
    source: str
    printed: str                # text of its stored outputs
    section: str                # the heading it stands under

def printed_text(cell:dict) -> str:         # a code cell, as in the file
    "The text in a cell's stored outputs, except what stands for an image."
    texts = (o.get('text') or o.get('data', {}).get('text/plain', '') for o in cell['outputs']
             if 'image/png' not in o.get('data', {}))
    return '\n'.join(''.join(t).strip() for t in texts)

def parts(cells:list) -> list:              # as in the file -> Cells
    "The cells of a notebook, prose taken apart at its headings."
    found, section = [], ''
    for c in cells:
        source = ''.join(c['source'])
        if c['cell_type'] == 'code':
            if source.strip(): found.append(Cell(True, source, printed_text(c), section))
            continue
        for piece in re.split(r'(?m)^(?=#+ )', source):
            if heading := re.match(r'#+ (.*)', piece): section = heading[1].strip()
            if piece.strip(): found.append(Cell(False, piece, '', section))
    return found

def read_chapters(
    folder=Path(__file__).parents[1]/'nbs',     # where the notebooks are
) -> dict:                                      # {file name: [Cell]}
    "All numbered chapters but the equations' own. FileNotFoundError where there are none."
    paths = sorted(p for p in Path(folder).glob('[0-9]*.ipynb') if p.stem != '71_equations')
    if not paths: raise FileNotFoundError(f"no chapters (such as 10_schedule.ipynb) in {folder}")
    return {p.name: parts(json.loads(p.read_text(encoding='utf-8'))['cells']) for p in paths}

def every_cell(chapters:dict):              # as from read_chapters
    "All cells of all chapters with their places: yields (chapter, index), Cell."
    for chapter, cells in chapters.items():
        for i, cell in enumerate(cells): yield (chapter, i), cell

def naming(chapters:dict, id:str, code:bool):
    "The cells of code, or of prose, in which an id is written, as from every_cell."
    for chapter, cells in chapters.items():
        for i, cell in enumerate(cells):
            if cell.code == code and id in cell.source: yield (chapter, i), cell


# What a single cell says; each of these remembers its answers

@lru_cache(maxsize=None)
def ids_in(text:str) -> frozenset:
    """The ids that a text names. E33a counts as E33;
    a link such as [E6](13_posterior.ipynb) points elsewhere and does not count."""
    return frozenset(re.findall(r'(?<!\[)\b(E\d+)[a-z]?\b', text))

@lru_cache(maxsize=None)
def formulas(prose:str) -> list:            # of one cell -> [(tags, LaTeX)]
    "Its displayed formulas with a tag; one that begins with = comes with the formula before it."
    found, before = [], ''
    for block in re.findall(r'\$\$(.+?)\$\$', prose, re.S):
        goes_on = before.rstrip(' .,') + '$$\n\n$$' if block.lstrip().startswith('=') else ''
        if r'\tag' in block: found.append((re.findall(r'\\tag\{(\w+)\}', block), goes_on + block))
        before = block
    return found

def definitions(source:str) -> list:        # of a code cell
    "The functions and classes that it defines for the library: none if it exports nothing."
    if not re.search(r'(?m)^#\|\s*exports?\b', source): return []
    kinds = ast.FunctionDef, ast.ClassDef
    return [n for n in ast.walk(ast.parse(source)) if isinstance(n, kinds)]

@lru_cache(maxsize=None)
def documented(source:str) -> list:         # of a code cell -> [(name, ids in the docstring)]
    "Its functions and classes, if it exports them."
    return [(n.name, ids_in(ast.get_docstring(n) or '')) for n in definitions(source)]

@lru_cache(maxsize=None)
def assertions(source:str) -> list:         # of a code cell
    """The assertions of a cell as they are written;
    none for refusals, and none in cells that are hidden, slow, exported or not run."""
    if re.search(r'(?m)^#\|\s*(exports?|hide|slow|cuda|eval:\s*false)\b', source): return []
    def asserts(n):
        name = getattr(n.func, 'id', '') if isinstance(n, ast.Call) else ''
        return isinstance(n, ast.Assert) or re.match(r'(test|assert)_(?!fail)', name)
    found = [n for n in ast.walk(ast.parse(source)) if asserts(n)]
    found.sort(key=lambda n: (n.lineno, n.col_offset))
    return [ast.get_source_segment(source, n) for n in found]

@lru_cache(maxsize=None)
def meant_for(
    source:str,                 # of a code cell
    before:str,                 # the prose right before it, or ''
) -> frozenset:
    "The ids that a check names in its comments, or the prose before it; none without assertions."
    if not assertions(source): return frozenset()
    return ids_in(' '.join(re.findall(r'# .*', source)) + ' ' + before)


# The three rules; places are (chapter, index)

def equations(chapters:dict, id:str) -> dict:       # such as 'E7' -> {place: LaTeX}
    "The formulas with the tag of this id; without any, those of its parts, such as E7a and E7b."
    for wanted in (id, id + '[a-z]'):
        found = {}
        for place, cell in naming(chapters, id, code=False):
            shown = [latex for tags, latex in formulas(cell.source)
                     if any(re.fullmatch(wanted, tag) for tag in tags)]
            if shown: found[place] = '$$\n\n$$'.join(shown)
        if found: break
    return found

def functions(chapters:dict, id:str) -> dict:       # such as 'E7' -> {place: [names]}
    "The exported functions and classes whose docstring names this id."
    found = {place: [name for name, ids in documented(cell.source) if id in ids]
             for place, cell in naming(chapters, id, code=True)}
    return {place: names for place, names in found.items() if names}

def next_check(cells:list, i:int) -> int:           # of one chapter; an index -> another, or None
    "The first check among the three code cells after i."
    following = [j for j in range(i + 1, len(cells)) if cells[j].code][:3]
    return next((j for j in following if assertions(cells[j].source)), None)

def checks(chapters:dict, id:str) -> list:          # such as 'E7' -> [place]
    "The cells that check this row, the equation's own check first."
    found, shown, computed = [], equations(chapters, id), functions(chapters, id)
    for chapter, i in shown:                        # 1: right after the equation, or its function
        cells = chapters[chapter]
        near = [k for c, k in computed
                if c == chapter and k > i and cells[k].section == cells[i].section]
        j = next_check(cells, min(near, default=i))
        other = [k for k in range(i, j or i)
                 if documented(cells[k].source) and (chapter, k) not in computed]
        if near or not other: found.append((chapter, j))
    for (chapter, i), cell in every_cell(chapters):     # 2: where the id is named
        before = chapters[chapter][i-1]
        prose = '' if before.code else before.source
        if cell.code and id in meant_for(cell.source, prose): found.append((chapter, i))
    home = {chapter for chapter, _ in shown}        # 3: after a function
    for c, k in sorted(computed, key=lambda place: place[0] not in home):
        found.append((c, next_check(chapters[c], k)))
    return list(dict.fromkeys(place for place in found if place[1] is not None))

def missing(chapters:dict) -> dict:         # {id: what it lacks}; empty if all is there
    """The rows of the ledger without an equation, a function that names them,
    or a check in a chapter that displays the equation."""
    found = {}
    for id in ledger:
        shown = equations(chapters, id)
        home = {chapter for chapter, _ in shown}
        at_home = [place for place in checks(chapters, id) if place[0] in home]
        there = dict(equation=shown, function=functions(chapters, id), check=at_home)
        found[id] = [what for what, places in there.items() if not places]
    return {id: lacks for id, lacks in found.items() if lacks}



# Showing what was found, in Markdown

def anchor(section:str) -> str:
    "What stands for a heading in a link."
    return quote(section.replace(' ', '-'), safe=':,!?')

def link(
    chapters:dict,
    place:tuple,                # (chapter, index)
    text:str=None,              # None: the chapter's number and the heading
) -> str:
    "A link to the heading under which a cell stands."
    chapter, i = place
    section = chapters[chapter][i].section
    return f"[{text or chapter[:2] + ' ' + section}]({chapter}#{anchor(section)})"

def short(text:str, n:int=90) -> str:       # most characters
    "The text as a bit of code: one line, cut at a word."
    text = ' '.join(text.split())
    if len(text) > n: text = text[:n].rsplit(' ', 1)[0] + ' …'
    return '`' + text.replace('`', "'") + '`'

def quotes(source:str) -> list:             # of a check
    "Its first and its longest assertion."
    every = assertions(source)
    return [short(a) for a in dict.fromkeys([every[0], max(every, key=len)])]

def function_links(chapters:dict, id:str) -> list:
    "Links to the functions of a row, those from the equation's own chapter first."
    computed, home = functions(chapters, id), {chapter for chapter, _ in equations(chapters, id)}
    found = []
    for place in sorted(computed, key=lambda place: place[0] not in home):
        found += [link(chapters, place, f'`{name}`') for name in computed[place]]
    return found

def table_row(chapters:dict, id:str) -> str:
    "A row of the ledger: what, chapter, functions, the equation's check, what it printed."
    tested = checks(chapters, id)[:1]
    cells = [chapters[chapter][i] for chapter, i in tested]
    where = dict.fromkeys([link(chapters, place) for place in equations(chapters, id)][:3])
    said = quotes(cells[0].source) if cells else []
    columns = ['<br>'.join(c) or '**missing**'
               for c in (where, function_links(chapters, id)[:3], said)]
    printed = cells[0].printed.splitlines()[-1:] if cells else []
    columns.append(short(printed[0]) if printed else '')
    columns = [c.replace('|', r'\|') for c in columns]      # a bar would split a table's cell
    return f'| **{id}** {ledger[id]} | ' + ' | '.join(columns) + ' |'

def card(chapters:dict, id:str) -> str:
    "A row of the ledger with its formulas, functions and first three checks."
    lines = [f'**{id} · {ledger[id]}**']
    for place, latex in equations(chapters, id).items():
        untagged = re.sub(r'\s*\\tag\{\w+\}', '', latex).strip()
        lines += [link(chapters, place), f'$${untagged}$$']
    computed, proofs = function_links(chapters, id), []
    lines.append(f"Computed by {', '.join(computed) or '**nothing: missing**'}.")
    for chapter, i in checks(chapters, id)[:3]:
        cell = chapters[chapter][i]
        n = len(assertions(cell.source))
        of = f', of {n} assertions' if n > 2 else ''
        printed = [short(line) for line in cell.printed.splitlines()[-2:] if line.strip()]
        said = ' → '.join([' and '.join(quotes(cell.source)), *printed])
        proofs.append(f"- {link(chapters, (chapter, i))}{of}: {said}")
    lines.append('Checked by' if proofs else 'Checked by **nothing: missing**')
    return '\n\n'.join([*lines, '\n'.join(proofs)])

def cards(chapters:dict, *ids) -> str:      # such as 'E1', 'E2'
    "Several cards, one below the other."
    return '\n\n---\n\n'.join(card(chapters, id) for id in ids)


# What rests on what

def uses(node) -> set:                      # ast of a function or class
    "The names that it uses and does not define itself, and '.name' for each method it calls."
    own = {m.arg for m in ast.walk(node) if isinstance(m, ast.arg)}
    names, called = set(), set()
    for part in node.body:
        for m in ast.walk(part):
            if isinstance(m, ast.Name):
                kept = own if isinstance(m.ctx, ast.Store) else names
                kept.add(m.id)
            if isinstance(m, ast.Call) and isinstance(m.func, ast.Attribute):
                called.add('.' + m.func.attr)
    return names - own | called

@lru_cache(maxsize=None)
def users(source:str) -> list:              # of a code cell -> [(name, ids, names used)]
    "The functions and classes that it exports, '.name' for a method, and what they use."
    found = []
    for n in definitions(source):
        first = n.args.args[:1] if isinstance(n, ast.FunctionDef) else []
        method = any(a.arg == 'self' for a in first)
        found.append(('.'*method + n.name, ids_in(ast.get_docstring(n) or ''), uses(n)))
    return found

def rests_on(chapters:dict) -> dict:        # {id: set of ids}, in the order of the chapters
    """The earlier equations that each equation uses:
    named in prose on the way to it, or called by its functions."""
    home, carried, known, found = {}, {}, [], {}
    for (chapter, i), cell in every_cell(chapters):
        if cell.code:
            known += users(cell.source)
            continue
        for tags, _ in formulas(cell.source):
            for tag in tags:
                end = cell.source.index(rf'\tag{{{tag}}}')
                if id := re.match(r'E\d+', tag): home.setdefault(id[0], (chapter, i, end))
    for name, ids, _ in known: carried[name] = carried.get(name, frozenset()) | ids
    for id in sorted(home, key=home.get):
        chapter, i, end = home[id]
        near = set(re.findall(r'\bE\d+', chapters[chapter][i].source[:end]))
        for _, ids, used in known:
            if id in ids: near = near.union(*(carried.get(name, ()) for name in used))
        found[id] = {b for b in near if b in home and home[b] < home[id]}
    return found
