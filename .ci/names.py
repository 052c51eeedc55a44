#!/usr/bin/env python3
"""Do the names of the package work? python .ci/names.py

`import diffnb` imports nothing else; what a type checker reads there is what is there; each name is
its module's own; and `sample` and `train` are functions, whatever was imported first.
"""
import ast, copy, importlib, pickle, subprocess, sys
from pathlib import Path

ALONE = """
import sys
before = set(sys.modules)
import diffnb
assert set(sys.modules) - before == {'diffnb'}, sorted(set(sys.modules) - before)
"""
# each in a package that was not imported yet; `sample` and `train` shall be the functions
ORDERS = """
from diffnb import sample, train
from diffnb.sample import sample
from diffnb.train import Settings, train
from diffnb import *
from diffnb.sample import DDPM; from diffnb import sample
from diffnb import sample; from diffnb.sample import DDPM
from diffnb.ddim import DDIM; from diffnb import train, sample
import diffnb.sample; from diffnb import sample; sample = diffnb.sample
import diffnb.sample as sample; assert sample.DDPM and sample.timesteps
import diffnb.train as train; assert train.Settings; import diffnb.sample as sample
import diffnb; assert diffnb.sample.DDPM is diffnb.DDPM
from diffnb import schedule, Schedule; assert schedule.Schedule is Schedule
import importlib; assert importlib.import_module('diffnb.sample').DDPM
"""

def module(name): return importlib.import_module(f'diffnb.{name}')

def forget():
    "As if diffnb had not been imported yet."
    for name in [n for n in sys.modules if n.split('.')[0] == 'diffnb']: del sys.modules[name]

def check_order(line):
    forget()
    found = {}
    exec(line, found)
    import diffnb
    for name in ('sample', 'train'):
        function = getattr(diffnb, name)
        assert function is getattr(module(name), name) is found.get(name, function)
        assert function is copy.deepcopy(function) is pickle.loads(pickle.dumps(function))

def check_names():
    import diffnb
    tree = ast.parse(Path(diffnb.__file__).read_text(encoding='utf-8'))
    typed = {}
    for line in next(s for s in tree.body if isinstance(s, ast.If)).body:
        typed |= {each.asname: line.module for each in line.names}
    assert typed == diffnb._home, set(typed.items()) ^ set(diffnb._home.items())
    assert set(dir(diffnb)) >= set(diffnb.__all__) == set(typed)
    for name, home in typed.items():
        assert getattr(diffnb, name) is getattr(module(home), name), name
        assert name in module(home).__all__, name
    assert not hasattr(diffnb, 'nonsense')
    return len(typed)

def main():
    subprocess.run([sys.executable, '-c', ALONE], check=True)
    orders = ORDERS.strip().splitlines()
    for line in orders:
        try: check_order(line)
        except Exception:
            print('this order of imports fails:', line)
            raise
    print(f"{check_names()} names, {len(orders)} orders of imports")

if __name__ == '__main__': main()
