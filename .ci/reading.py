#!/usr/bin/env python3
"""How long does the course take, and is its reading path clear? reading.py [--write] [NB ...]

Words at 200 a minute and visible lines of code at 10 a minute; folded and hidden cells and the
sections Checks and Answers are not on the reading path. Prints a row for each chapter and the sums;
with notebooks named, only their rows. The exit code is 1 where the path has a refusal test or a
figure without a caption, a chapter states another time than this (--write corrects it), or a sum
passes its limit. Chapters that go beyond the survey (+ in the index) are no part of the course's
sum; each has its own limit.
"""
import json, re, sys
from pathlib import Path
from fold import folds, headings

WORDS, LINES = 200, 10              # a minute
LIMITS = {'first model': 10, 'short path': 60, 'course': 300, 'longest beyond': 20}  # minutes
STATED = re.compile(r'\*Reads in (\d+) min')

class Chapter:
    "What a reader meets in a notebook."
    def __init__(self, path):
        self.path, self.name = path, path.stem
        self.words = self.lines = 0
        self.faults, self.stated = [], None
        cells = json.loads(path.read_text(encoding='utf-8'))['cells']
        aside = False
        for i, (cell, folded) in enumerate(zip(cells, list(folds(cells)))):
            source = ''.join(cell['source'])
            if cell['cell_type'] == 'markdown':
                for heading in headings(source):
                    aside = re.match(r'(Checks|Answers)\b', heading) is not None
                if not aside: self.words += len(source.split())
                if m := STATED.search(source): self.stated = self.stated or int(m[1])
                continue
            below = ''.join(cells[i + 1]['source']) if i + 1 < len(cells) else ''
            figure = any('image/png' in o.get('data', {}) for o in cell['outputs'])
            if figure and not below.lstrip().startswith('*'):
                self.faults.append(f'{path}[{i}]: a figure without a caption below it')
            if aside or folded or re.search(r'(?m)^#\|\s*(hide|echo:\s*false)', source): continue
            if 'test_fail' in source:
                self.faults.append(f'{path}[{i}]: a refusal on the reading path')
            self.lines += sum(bool(line.strip()) and not line.lstrip().startswith('#')
                              for line in source.splitlines())

    @property
    def minutes(self): return self.words/WORDS + self.lines/LINES

    def state(self, write):
        "Hold the chapter's own claim to what is measured."
        wrong = self.stated is not None and self.stated != max(1, round(self.minutes))
        if wrong and write:
            text = self.path.read_text(encoding='utf-8')
            new = f'*Reads in {max(1, round(self.minutes))} min'
            self.path.write_text(STATED.sub(new, text, count=1), encoding='utf-8')
        elif wrong:
            self.faults.append(f'{self.path}: "Reads in {self.stated} min", measured '
                               f'{self.minutes:.1f} (python .ci/reading.py --write)')

def marked(index, mark):
    "The chapters that the index marks: ★ the short path, + beyond the survey."
    text = ''.join(''.join(c['source']) for c in json.loads(index.read_text())['cells'])
    return re.findall(rf'(?m)^\|.*\| {re.escape(mark)} .*\]\((\w+)\.ipynb\)', text)

def main():
    named = [Path(p) for p in sys.argv[1:] if p != '--write']
    paths = named or sorted(Path('nbs').glob('[0-9]*.ipynb'))
    chapters = {p.stem: Chapter(p) for p in paths}
    for c in chapters.values():
        c.state('--write' in sys.argv)
        print(f'{c.name:20} {c.words:6} words {c.lines:5} lines {c.minutes:6.1f} min')
    faults = sum((c.faults for c in chapters.values()), [])
    if not named:
        short, beyond = (marked(Path('nbs/index.ipynb'), mark) for mark in '★+')
        course = [c for c in chapters.values() if c.name < '8' and c.name not in beyond]
        sums = {'first model': chapters['01_start'].minutes,
                'short path': sum(chapters[name].minutes for name in short),
                'course': sum(c.minutes for c in course),
                'longest beyond': max(chapters[name].minutes for name in beyond)}
        print(f"short path: {', '.join(short)}; beyond the survey: {', '.join(beyond)}")
        for what, limit in LIMITS.items():
            print(f'{what}: {sums[what]:.0f} min (at most {limit})')
            if sums[what] > limit: faults.append(f'{what}: {sums[what]:.0f} min')
        if not 0 < len(short) <= 6: faults.append(f'a short path of {len(short)} chapters')
        lines, words = (sum(getattr(c, k) for c in chapters.values()) for k in ('lines', 'words'))
        print(f'{lines/len(chapters):.0f} visible lines a chapter (at most 200), '
              f'{words/lines:.1f} words a line (at least 9)')
        if lines > 200*len(chapters) or words < 9*lines: faults.append('too much code in sight')
    print('\n'.join(faults))
    return bool(faults)

if __name__ == '__main__': sys.exit(main())
