"""The equations, symbols and checks of the course, read off its chapters.

nbs/71_equations.ipynb shows what is found, and tests the rules.
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
    'E37': 'stochastic differential equations',
    'B4': 'flow matching: the average velocity',
    'B5': 'flow, VP and VE are one process',
    'B6': 'coupling and reflow',
    'B13': 'noise on symbols'}

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


symbols = {                                 # LaTeX: pattern, words of its definition, meaning
    'x_0': (r'x_0', 'data', 'a point of the data, clean'),
    'x_t': (r'x_t', 'nois', 'the point at time t: signal and noise'),
    't': (r'(?<![a-zA-Z\\_])t(?![a-zA-Z])', 'time|step', 'time: 0 is clean data'),
    'T': (r'(?<![a-zA-Z\\])T(?![a-zA-Z])', 'last|steps|end', 'the last time of a chain'),
    's': (r'(?<![a-zA-Z\\])s(?![a-zA-Z])', 'earlier|time', 'an earlier time'),
    r'\epsilon': (r'\\epsilon(?!_)', 'noise', 'the standard normal noise in x_t'),
    'z': (r'(?<![a-zA-Z\\])z(?![a-zA-Z])', 'noise|normal', 'fresh standard normal noise'),
    r'\beta_t': (r'\\beta', 'variance|noise', 'the variance of the noise that step t adds'),
    r'\alpha_t': (r'(?<!bar)\\alpha', r'beta', '1 - β_t'),
    r'\bar\alpha_t': (r'\\bar\\alpha', 'product|share|signal|remain',
                      'the product of α_1 to α_t: the share of the variance that is signal'),
    r'a, b': (r'(?<![a-zA-Z\\])a\(t\)|(?<![a-zA-Z\\])a_t|(?<![a-zA-Z\\{])a(?![a-zA-Z])',
             'signal', 'signal and noise level: x_t = a x_0 + b ε'),
    r'\tilde\beta_t': (r'\\tilde\\beta', 'variance', 'the variance of the posterior'),
    r'\tilde\mu_t': (r'\\tilde\\mu', 'mean', 'the mean of the posterior'),
    r'\theta': (r'\\theta', 'network|parameter|weights|model', 'the parameters of a network'),
    r'\mu_\theta, \Sigma_\theta': (r'\\mu_\\theta|\\Sigma_\\theta', 'mean|variance',
                                  'mean and variance of a step of the model'),
    r'\varsigma_t': (r'\\varsigma', 'noise',
                    'the standard deviation of the noise that a sampling step adds'),
    r'\sigma': (r'\\sigma', 'noise|level', 'the noise level b/a'),
    r'\tau_i': (r'\\tau', 'subset|times|stops', 'the times at which a short chain stops'),
    r'\eta': (r'\\eta', 'DDIM|noise|between', 'how much of the noise of DDPM a DDIM step adds'),
    r'\lambda': (r'\\lambda(?!_\{ \})', 'log',
                'the logarithm of a/b, half the log of signal-to-noise'),
    r'\lambda_{\text{vlb}}': (r'\\lambda_\{ \}', 'bound|weight',
                              'the weight of the bound in the hybrid loss'),
    'w': (r'(?<![a-zA-Z\\])w(?![a-zA-Z])', 'scale|weight', 'guidance scale'),
    r'\gamma': (r'\\gamma', 'weight|times', 'the limit of the min-SNR weight'),
    r'\delta': (r'\\delta', 'error', 'a small error'),
    r'\kappa': (r'\\kappa', 'cosine|offset', 'the offset of the cosine schedule'),
    r'\rho': (r'\\rho', 'deviation', 'a standard deviation'),
    r'\omega_i': (r'\\omega', 'speed|frequenc', 'a frequency of the time embedding'),
    r'\Sigma': (r'\\Sigma(?!_)', 'covariance', 'a covariance'),
    r'\pi': (r'\\pi', '', 'the number; for symbols, the distribution of the noise'),
    r'\varphi': (r'\\varphi', 'function', 'any smooth function'),
}


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
    return frozenset(re.findall(r'(?<!\[)\b([EB]\d+)[a-z]?\b', text))

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

def proves(source:str) -> list:             # of a code cell
    "The ids that the cell is marked to be the check of: `# proves E6 E7`."
    marked = re.findall(r'(?m)^\s*# proves ((?:[EB]\d+\b[ ,]*)+)', source)
    return re.findall(r'[EB]\d+', ' '.join(marked)) if assertions(source) else []


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

def checks(chapters:dict, id:str) -> list:          # such as 'E7' -> [place]
    "The cells that are marked as the check of this row."
    return [place for place, cell in naming(chapters, id, code=True) if id in proves(cell.source)]

def missing(chapters:dict) -> dict:         # {id: what it lacks}; empty if all is there
    "The rows of the ledger without an equation, a function that names them, or their one check."
    found = {}
    for id in ledger:
        there = dict(equation=equations(chapters, id), function=functions(chapters, id),
                     check=len(checks(chapters, id)) == 1)
        found[id] = [what for what, places in there.items() if not places]
    return {id: lacks for id, lacks in found.items() if lacks}

def tagged_twice(chapters:dict) -> dict:    # {tag: places}
    "The tags that two different formulas carry."
    found = {}
    for place, cell in every_cell(chapters):
        if cell.code: continue
        for tags, _ in formulas(cell.source):
            for tag in tags: found.setdefault(tag, []).append(place)
    return {tag: places for tag, places in found.items() if len(places) > 1}


# Symbols: each is said in words where it first stands

def mathematics(prose:str) -> str:
    "The formulas of a cell of prose, without the words inside of them."
    found = re.findall(r'\$\$(.+?)\$\$|\$([^$\n]+)\$', prose, re.S)
    return ' '.join(re.sub(r'\\(text|operatorname|tag|mathrm)\*?\{[^}]*\}', ' ', a or b)
                    for a, b in found)

def first_use(chapters:dict, pattern:str) -> tuple:     # place, or None
    "The first cell of prose with a formula that the pattern finds something in."
    for place, cell in every_cell(chapters):
        if not cell.code and re.search(pattern, mathematics(cell.source)): return place
    return None

def undefined(chapters:dict) -> dict:       # {symbol: what is wrong}
    "The symbols of the table that are not explained where they first stand, or never stand."
    found = {}
    for symbol, (pattern, words, _) in symbols.items():
        place = first_use(chapters, pattern)
        if place is None: found[symbol] = 'never used'
        elif not re.search(words, chapters[place[0]][place[1]].source, re.I):
            found[symbol] = f'{place[0]}[{place[1]}] does not say {words}'
    return found

def unlisted(chapters:dict) -> dict:        # {Greek letter: place of its first use}
    "The Greek letters in formulas that no row of the table explains."
    greek = ('alpha beta gamma delta epsilon varepsilon zeta eta theta kappa lambda mu nu xi pi '
             'rho sigma varsigma tau phi varphi chi psi omega Gamma Delta Theta Lambda Sigma Phi '
             'Psi Omega').split()
    listed = ' '.join(pattern for pattern, _, _ in symbols.values())
    rest = [letter for letter in greek if not re.search(rf'\\\\{letter}\b', listed)]
    uses = {letter: first_use(chapters, rf'\\{letter}(?![a-zA-Z])') for letter in rest}
    return {letter: place for letter, place in uses.items() if place}


# Checks that a wrong twin fails

def powers(chapters:dict) -> list:          # [(place, what, value, limit, twins)]
    "What `test_power` printed: each statistical check with its limit and its wrong twins."
    line = re.compile(r'power: (.+): (\S+) ≤ (\S+) < (.+)')
    found = []
    for place, cell in every_cell(chapters):
        matches = map(line.fullmatch, cell.printed.splitlines() if cell.code else [])
        found += [(place, *m.groups()) for m in matches if m]
    return found

def twinless(chapters:dict) -> list:        # [(place, assertion)]
    "Assertions within a number of standard errors, or of chance, that no twin has failed."
    hint = re.compile(r'\b[345] ?\* ?(\w+_)?(se|err|errors?|std)\b|\b[345] ?\*.*\bstd\('
                      r'|\bquantile\(')
    found = []
    for place, cell in every_cell(chapters):
        if not cell.code or 'test_power(' in cell.source: continue
        found += [(place, a) for a in assertions(cell.source) if hint.search(a)]
    return found


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
    "A row of the ledger: what, chapter, functions, its check, what the check printed."
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

def power_row(chapters:dict, row:tuple) -> str:         # as from powers
    "A row of the table of statistical checks."
    place, what, value, limit, twins = row
    columns = link(chapters, place, place[0][:2]), what, value, limit, twins
    return '| ' + ' | '.join(c.replace('|', r'\|') for c in columns) + ' |'
