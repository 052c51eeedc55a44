#!/usr/bin/env python3
"""Do the modules, scripts and notebook cells keep to one style? python .ci/style.py [PATH ...]

ruff, with the settings in pyproject.toml, and three habits that it does not know: a walrus inside a
call, an f-string or a comprehension; a comprehension with two `for`; `a and b()` as a statement.
Prints the places. The exit code is 1 if there is one, or if the check itself finds no fault in
lines that are wrong.
"""
import ast, json, re, subprocess, sys
from pathlib import Path

PATHS = 'diffnb', '.ci', 'site', 'benchmarks', 'setup.py', 'nbs'
COMPREHENSION = ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp
WRONG = {'f(x := 1)': 'walrus', 'f"{(x := 1)}"': 'walrus', '[y for x in xs if (y := x)]': 'walrus',
         '[x for xs in xss for x in xs]': 'two `for`', 'a and f()': 'as a statement',
         'x = 1; y = 2': 'E702', 'f = lambda x: x': 'E731', 'x = "' + 100*'a' + '"': 'E501',
         'def f(' + ', '.join('abcdefghijkmn') + '): return a': 'PLR0913', 'import os': 'F401'}
RIGHT = ['if (x := f()): g(x)', 'if c: f()', '[x for x in xs]', 'y = a and f()']

def habits(tree):
    "What ruff does not know: (line, complaint)."
    for n in ast.walk(tree):
        if isinstance(n, (ast.Call, ast.JoinedStr, *COMPREHENSION)):
            for inner in ast.walk(n):
                if isinstance(inner, ast.NamedExpr):
                    yield inner.lineno, 'a walrus inside a call, an f-string or a comprehension'
        if isinstance(n, COMPREHENSION) and len(n.generators) > 1:
            yield n.lineno, 'a comprehension with two `for`'
        if isinstance(n, ast.Expr) and isinstance(n.value, ast.BoolOp):
            yield n.lineno, '`and` or `or` as a statement'

def cells(path):
    "The code of a module, or of each code cell of a notebook: (name, text)."
    text = path.read_text(encoding='utf-8')
    if path.suffix == '.py': return [(str(path), text)]
    return [(f'{path}:cell {i}', ''.join(c['source']))
            for i, c in enumerate(json.loads(text)['cells'], 1) if c['cell_type'] == 'code']

def complaints(name, text):
    "The habits of one piece of code, once a line; a line of IPython (%pip) counts as a comment."
    code = re.sub(r'(?m)^[%!]', '#', text)
    return [f'{name}:{line}: {what}' for line, what in sorted(set(habits(ast.parse(code))))]

def ruff(*given, **kw):
    return subprocess.run(['ruff', 'check', '--quiet', '--output-format', 'concise', *given], **kw)

def self_test():
    "The wrong lines that pass, and the right ones that do not."
    for line, fault in WRONG.items():
        said = ruff('-', input=line + '\n', text=True, capture_output=True).stdout
        if fault not in said + '\n'.join(complaints('', line)).replace('`and` or `or` ', ''):
            yield f'.ci/style.py does not see what is wrong in: {line}'
    yield from (f'.ci/style.py complains about: {line}' for line in RIGHT if complaints('', line))

def main():
    paths = [Path(p) for p in sys.argv[1:] or PATHS]
    bad, files = list(self_test()), []
    for p in paths: files += [p] if p.is_file() else sorted(p.rglob('*'))
    for f in files:
        if f.suffix not in ('.py', '.ipynb') or '.ipynb_checkpoints' in f.parts: continue
        if f.name == '_modidx.py': continue
        for name, text in cells(f): bad += complaints(name, text)
    if bad: print('\n'.join(bad))
    return bool(bad) | bool(ruff(*paths).returncode)

if __name__ == '__main__': sys.exit(main())
