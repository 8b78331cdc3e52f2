"""Generated task files and edits of them, with plain Python as the oracle.

    fuzz_programs.py [--programs 2000] [--seed 0]

An edit after which plain Python gets other values for a row has to change the digest of the code, and one after
which it gets other rows that of the space. Programs read files, and write some; where plain Python gets other values
from a file of other content, a statement that counts for them has to be one of those that read it. Prints each edit that does not, and how many edits that change nothing
change no digest.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import sys
import tempfile
import types
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from psyrun.source import Source, digest_sources, find_parts

HEAD = """\
import csv, functools, glob, itertools, json, operator, os
from pathlib import Path
import numpy as np
from psyrun import Param
import helper
from helper import grow, TABLE, scaled
REGISTRY = []
def register(f):
    REGISTRY.append(f)
    return f
class Base:
    subs = []
    def __init_subclass__(cls):
        Base.subs.append(cls.__name__)
class Model:
    v = 1
    def fit(self, xs):
        self.v = sum(xs)
        return [self.v]
    def parameters(self):
        return [self]
"""
HELPER = """\
import functools
from pathlib import Path
K = 3
with open('b.txt') as f:
    LINES = [int(line) for line in f]
TABLE = [1, 2]
STATE = {'a': 1}
def grow(q):
    q.append(K)
def scaled(x):
    return x * K
def bump(k=1):
    global K
    K += k
def unused():
    return 7
def save(q):
    Path('b.txt').write_text(str(q) + '\\n')
def load():
    return [int(line) for line in open('b.txt')]
class Thing:
    def fit(self, xs):
        self.v = sum(xs)
        return [self.v]
    def parameters(self):
        return [self]
    def __init__(self, v=2):
        self.v = v
    def m(self):
        return self.v + STATE['a']
"""
FILES = {
    "a.json": "[1, 2, 3]", "b.txt": "4\n5\n", "c.csv": "x,y\n1,2\n3,4\n", "sub/b.txt": "6\n", "sub/a.json": "[7]",
    "sub/c.csv": "x,y\n8,9\n", "grid.txt": "1\n", "other.txt": "2\n",
}  # fmt: skip
NEW = {
    "list": [
        "with open('a.json') as f:\n    {n} = json.load(f)",
        "with open('b.txt') as f:\n    {n} = [int(line) + {k} for line in f]",
        "with open('b.txt') as f, open('a.json') as g:\n    {n} = [int(f.read().split()[0]), *json.load(g)]",
        "with open('c.csv') as f:\n    rows = csv.reader(f)\n    head = next(rows)\n    {n} = [int(r[{k} % 2]) for r in rows]",
        "with open('c.csv') as f:\n    {n} = [int(r['x']) for r in csv.DictReader(f)]",
        "{n} = json.load(open('a.json'))",
        "{n} = [int(line) for line in open('b.txt')]",
        "{n} = [int(q) for q in Path('b.txt').read_text().split()]",
        "{n} = [len(p.name) for p in sorted(Path().glob('*'))]",
        "{n} = [int(v) for v in np.loadtxt('b.txt', ndmin=1)]",
        "{n} = []\nfor p in sorted(glob.glob('*.txt')):\n    with open(p) as f:\n        {n}.append(len(f.read()))",
        "{n} = [len(open(p).read()) for p in sorted(glob.glob('*.json'))]",
        "with open('b.txt') as f:\n    q = zip(f, {list})\n    {n} = [int(x) for x, _ in q]",
        "{n} = helper.LINES",
        "{n} = helper.load()",
        "{n} = [{k}, {k}]",
        "{n}: list[int] = [{k}]",
        "{n} = os.environ.get('NOT_THERE_', {list})",
        "{n} = list(range({k}))",
        "{n} = [i * {k} for i in range(3)]",
        "{n} = []",
        "{n} = [*{list}, {k}]",
        "{n} = sorted({list})",
        "{n} = {list} + [{k}]",
        "{n} = {list}",
        "{n} = {nest}[0]",
        "{n} = sum([], {list})",
        "{n} = {list}[1:]",
        "{n} = TABLE",
        "{n} = helper.TABLE",
        "{n} = list({iter})",
        "{n} = Model().fit({list})",
        "{n} = [x for x in {iter}]",
        "{n} = max([{list}], key=len)",
        "{n} = Base.subs",
        "{n} = [f.__name__ for f in REGISTRY]",
        "{n} = list(helper.STATE.items())",
        "{n} = REGISTRY[:0]",
        "{n} = [{list}, {k}][0]",
        "{n} = {list} if {num} else [{k}]",
        "{n} = {list} or [{k}]",
        "{n} = (lambda q: q)({list})",
        "{n}, _ = {list}, {k}",
        "[{n}] = [{list}]",
        "({n} := [{k}])",
    ],
    "nest": ["{n} = [{list}]", "{n} = [{list}, {list}]", "{n} = list(zip({list}, {list})) or [[{k}]]"],
    "num": [
        "with open('b.txt') as f:\n    {n} = int(next(f)) + {k}",
        "{n} = json.load(open('a.json'))[0]",
        "{n} = int(os.path.exists('o{k}.txt'))",
        "{n} = len(Path('b.txt').read_text())",
        "{n} = {k}",
        "{n} = len({list})",
        "{n} = {k} + {num}",
        "{n} = max({list}, default={k})",
        "{n} = helper.K",
        "{n} = next({iter}, {k})",
        "{n} = {func}({k})",
        "{n} = {obj}.v",
        "{n} = {num}",
        "{n} = scaled({k})",
        "{n} = int(abs({arr}).sum())",
        "{n} = len(REGISTRY)",
        "{n} = len(Base.subs)",
        "{n} = {num} * {k} if {list} else {num}",
        "try:\n    {n} = missing{k}\nexcept NameError:\n    {n} = {num}",
        "{n} = getattr(helper, 'K', {k})",
        "{n} = hasattr({func}, 'c') + {k}",
        "{n} = {cls}.v",
        "{n} = functools.reduce(operator.add, {list}, {k})",
    ],
    "iter": [
        "{n} = open('b.txt')",
        "{n} = csv.reader(open('c.csv'))",
        "with open('b.txt') as f:\n    {n} = zip({list}, {list})",
        "{n} = np.array(zip({list}, {list}))[()]",
        "{n} = dict(a=zip({list}, {list}))['a']",
        "{n} = iter({list})",
        "{n} = zip({list}, {list})",
        "{n} = (x for x in {list})",
        "{n} = itertools.count({k})",
        "{n} = map(str, {list})",
        "{n} = {iter}",
        "{n} = enumerate({list})",
        "{n} = reversed({list})",
    ],
    "func": [
        "def {n}(x):\n    return x + {num}",
        "def {n}(x, d={num}):\n    return x + d",
        "{n} = lambda x: x + {k}",
        "def {n}(x, q={list}):\n    q.append(x)\n    return len(q)",
        "@register\ndef {n}(x):\n    return x - {k}",
        "@functools.cache\ndef {n}(x):\n    return x + {num}",
        "def make_{n}(k):\n    return lambda x: x + k\n{n} = make_{n}({k})",
        "{n} = functools.partial(operator.add, {k})",
        "{n} = {func}",
        "{n} = scaled",
        "def {n}(x):\n    global {num}\n    {num} = {k}\n    return x",
        "def {n}(x):\n    {list}.append({k})\n    return x",
        "def {n}(x):\n    'Doc {k}.'\n    print(x)\n    y = [x for x in {list}]\n    return len(y) + {k}",
        "def {n}(x):\n    import helper as h\n    return h.K + x",
        "def {n}(x):\n    return int({n}.__doc__ or {k})",
        "def {n}(x):\n    from helper import STATE as s\n    s['a'] += {k}\n    return x",
    ],
    "cls": [
        "class {n}(Model):\n    v = {num}\n    def m(self):\n        return self.v + {k}",
        "class {n}(Model):\n    v = {k}",
        "class {n}(Base):\n    v = {k}",
        "class {n}({cls}):\n    v = {num}",
        "class {n}(helper.Thing):\n    v = {k}",
        "class {n}:\n    v = {k}\n    for v in range({k}): pass",
        "{n} = {cls}",
        "{n} = type('T', (Model,), {{'v': {k}}})",
    ],
    "obj": [
        "{n} = {cls}()",
        "{n} = Model()",
        "{n} = helper.Thing({k})",
        "{n} = {obj}",
        "{n} = helper.Thing({num})",
    ],
    "arr": [
        "{n} = np.zeros(3)",
        "{n} = {k}\n{n} += np.ones(3)",
        "{n} = np.float64([{k}, 1, 2])",
        "{n} = {k}\nfor q in {arr}:\n    {n} += {arr}",
        "{n} = np.arange({k}.0, {k} + 3)",
        "{n} = {arr}[:2]",
        "{n} = {arr}",
        "{n} = np.array({arr})",
        "{n} = abs({arr})",
        "{n} = {arr}.reshape(-1)",
        "{n} = np.asarray({arr})",
        "{n} = {arr} * {k}",
        "{n} = np.linspace(0, {k}, 3)",
    ],
    "own": [
        "def {n}(q=0):\n    return [{k}, {k}]",
        "def {n}(q=0):\n    out = []\n    for i in range({k}):\n        out.append(i)\n    return out",
        "def {n}(q=0):\n    return {list}",
        "def {n}(*q):\n    {list}.append({k})\n    return [{k}]",
        "def {n}(*q):\n    return {own}(*q)",
        "def {n}(q=0):\n    return q or [{k}]",
        "def {n}(q=0):\n    x = {list}\n    x.append({k})\n    return x",
        "def {n}(q=0):\n    {list}.append({k})\n    return [{k}]",
        "def {n}(q=0):\n    x = {list}\n    x += [{k}]\n    return x",
        "def {n}(q=0):\n    x = [{list}]\n    x[0] = [{k}]\n    return x[0]",
        "def {n}(q=0):\n    x = [{list}]\n    x[0] += [{k}]\n    return x[0]",
        "def {n}(q=0):\n    for x in [{list}]:\n        x.append({k})\n    return [{k}]",
        "def {n}(q=[]):\n    q = q or []\n    q.append({k})\n    return q",
        "def {n}(q=[]):\n    return q",
        "def {n}(q={num}):\n    return [q]",
        "def {n}(q=0):\n    for i in range({k}):\n        yield i",
        "def {n}(q=0):\n    yield from {list}",
        "def {n}(q=0):\n    return zip([1, 2], {list})",
        "def {n}(q=0):\n    return {iter}",
        "def {n}(q=0):\n    return [next({iter}, 0)]",
        "def {n}(q=0):\n    with open('b.txt') as f:\n        return [int(x) + {k} for x in f]",
        "def {n}(q=0):\n    f = open('b.txt')\n    return f",
        "def {n}(q=0):\n    f = open('b.txt', 'a')\n    return [{k}]",
        "def {n}(q='b.txt'):\n    return [len(x) for x in open(q)]",
        "def {n}(q=0):\n    try:\n        return [{num}]\n    except NameError:\n        return [{k}]",
        "def {n}(q=0):\n    try:\n        return json.load(open('o{k}.txt'))\n    except OSError:\n        return [{k}]",
        "def {n}(q=0):\n    if {num} > {k}:\n        return [1]\n    return list({own}(q))",
        "def {n}(q=0):\n    return list({own}(q)) + [{k}]",
        "def {n}(q=0):\n    global {num}\n    {num} = {k}\n    return [1]",
        "@functools.cache\ndef {n}(q=0):\n    return [{k}]",
        "def {n}(q=0):\n    {own}.c = {k}\n    return [{k}]",
        "def {n}(q=0):\n    return [getattr({own}, 'c', {k})]",
        "def {n}(q=0):\n    return [lambda: {list}, {k}][1:]",
        "def {n}(q=0):\n    return helper.load()",
        "def {n}(q=0):\n    t = 0\n    for x in {list}:\n        t += x\n    return [t]",
        "def {n}(q=0):\n    t = {num}\n    t += {k}\n    return [t]",
        "def {n}(q=0):\n    t = 0\n    while t < {k}:\n        t += 1\n    return [t, {num}]",
        "def {n}(q=0):\n    x = [{list}, 1]\n    y = x\n    return y",
        "{n} = {own}",
        "{n} = lambda q=0: [{k}]",
    ],
}
OWN_USES = {
    "list": [
        "{n} = list({own}())", "{n} = list({own}({list}))", "{n} = [*{own}(q={list})]", "{n} = {own}()", "{n} = {own}({list})",
        "{n} = list(zip({own}(), {own}()))", "{n} = []\nfor i in {own}():\n    {n}.append(i)", "{n} = [{own}()]", "{n} = [{own}()][0]",
        "with open('b.txt') as f:\n    {n} = [f.read(1), *{own}()]", "{n} = [x for x in {own}()]", "{n}, _ = {own}(), {k}",
    ],
    "num": [
        "{n} = len(list({own}()))", "{n} = 0\n{n} += len(list({own}({list})))", "{n} = max({own}(), default={k})", "{n} = {k}",
        "{n} = 0\nfor i in {own}():\n    {n} += i",
    ],
    "iter": ["{n} = iter({own}())", "{n} = {own}()", "{n} = zip({own}(), {own}())"],
    "own": NEW["own"],
}  # fmt: skip
# Changes that the analysis of functions is about.
OWN_CHANGE = [
    "{own}()", "{own}({list})", "_ = {own}({list})", "alias{k} = {own}()\nalias{k}.append({k})", "alias{k} = {own}({list})\nalias{k} += [{k}]",
    "{own}({list}).append({k})", "{own}.__defaults__ = ([{k}],)", "{own}.c = {k}", "(lambda f: setattr(f, '__defaults__', ([{k}],)))({own})",
    "{own}.__kwdefaults__ = {{}}", "{list}.append({k})", "{list} += [{k}]", "{num} = {k}", "{num} += {k}", "next({iter}, None)",
    "helper.load = lambda: [{k}]", "setattr(helper, 'load', lambda: [{k}])", "with open('b.txt', 'w') as f:\n    f.write('{k}\\n')",
    "def {own}(q=0):\n    return [{k}, 1, 2]", "{own} = lambda q=0: [{k}, 3]", "same{k} = {own}\nsame{k}.__defaults__ = ([{k}],)",
    "for f in [{own}]:\n    f.__defaults__ = ([{k}],)", "list(zip({own}(), {iter}))", "functions{k} = {{'a': {own}}}\nfunctions{k}['a'](8)",
    "x{k} = [{own}() for _ in range(2)]", "open = lambda *a, k={k}: [str(k)]", "len = lambda q, k={k}: k", "print({own}())",
    "from unittest import mock\nmock.patch('helper.load', lambda: [{k}]).start()", "mock{k} = {list}\nmock{k}.append({own}())",
]  # fmt: skip
CHANGE = [
    "with open('b.txt', 'w') as f:\n    f.write('{k}\\n')", "Path('b.txt').write_text('{k}\\n')", "f = {k}", "os.chdir('sub')",
    "json.dump([{k}, {num}], open('a.json', 'w'))", "open('b.txt', 'a').write('{k}\\n')", "helper.save({num})",
    "Path('o{k}.txt').write_text('')", "json.load = lambda f, k={k}: [k]", "Path.read_text = lambda self: '{k}'",
    "open = lambda *a, k={k}: [str(k)]", "np.savetxt('b.txt', [{k}])", "def store{k}(q):\n    open('b.txt', 'w').write(str(len(q)))\nstore{k}({list})",
    "{list}.append({k})", "{list} += [{k}]", "{list}[:1] = [{k}]", "for i in range(2):\n    {list}.append(i * {k})",
    "{list}.extend(x for x in [{k}])", "grow({list})", "helper.grow({list})", "{list}.insert(0, {k})", "{list}.reverse()",
    "{nest}[0] = [{k}]", "for q in [{list}]:\n    q.append({k})", "(lambda q: q.append({k}))({list})",
    "list(map({list}.append, [{k}]))", "[{list}.append({k}) for _ in range(2)]", "if {list}:\n    {list}.append({k})",
    "try:\n    {list}.append({k})\nfinally:\n    pass", "del {list}[:1]", "{list}.extend({list})", "_ = {list} and {list}.pop()",
    "{num} += {k}", "{num} = {k}", "for {num} in range({k}):\n    pass", "helper.K = {k}", "setattr(helper, 'K', {k})",
    "helper.bump({k})", "helper.STATE['a'] = {k}", "helper.STATE.update(a={k})", "TABLE.append({k})", "helper.TABLE += [{k}]",
    "next({iter}, None)", "list({iter})", "{func}({k})", "_ = {func}({k})", "{obj}.v = {k}", "{cls}.v = {k}",
    "for p in {obj}.parameters():\n    p.v = {k}", "history{k} = {obj}.fit([{k}])", "header{k} = next({iter}, None)",
    "unused{k} = {func}({k})", "alias{k} = {list}\nalias{k}.append({k})", "same{k} = {obj}\nsame{k}.v = {k}",
    "made{k} = [setattr({obj}, 'v', {k})]", "(lambda o: setattr(o, 'v', {k}))({obj})", "first{k}, *rest{k} = {iter}",
    "def tune{k}(o):\n    o.v = {k}\ntune{k}({obj})", "def tune{k}(o):\n    o.v = {k}\n    return o\ntuned{k} = tune{k}({obj})",
    "both{k} = {{'a': {list}}}\nboth{k}['a'].append({k})", "view{k} = {arr}[:1]\nview{k} += {k}",
    "grown{k} = list(map({list}.append, [{k}]))", "total{k} = [{obj}.fit([{k}]) for _ in range(2)]",
    "for p in [{obj}]:\n    p.v = {k}", "{arr}[0] = {k}", "{arr} += {k}",
    "np.add({arr}, {k}, out={arr})", "{arr}.fill({k})", "{arr}.round(0, {arr})", "vars({obj})['v'] = {k}",
    "@register\ndef hidden{k}(x):\n    return x", "class Sub{k}(Base):\n    pass", "print({list}, {num})", "with open('/dev/null') as file:\n    {num} = {k}",
    "globals()['{num}'] = {k}", "exec('{num} = {k}')", "{func}.c = {k}", "helper.scaled = lambda x: {k}", "assert True, {k}",
    "def setter{k}():\n    global {num}\n    {num} = {k}\nsetter{k}()", "match {num}:\n    case {k}:\n        {num} = 9\n    case other:\n        {list}.append(other)",
    "while len({list}) < {k} % 5:\n    {list}.append({k})", "{num}, {list}[0:1] = {k}, [{k}]", "import helper as h2\nh2.K = {k}",
    "from helper import STATE as st\nst['a'] = {k}", "np.sum = lambda x, k={k}: k", "len = lambda q, k={k}: k" , "del {num}\n{num} = {k}",
    "s{k} = 'a string with {num}'", "CONST{k} = {k}", "if {num} > {k}:\n    {list}.clear()\nelse:\n    {num} = {k}",
]  # fmt: skip
# Changes that the white lists are about.
QUIET = [
    "{list}.append({k})",
    "{list} += [{k}]",
    "while len({list}) < {k} % 5:\n    {list}.append({k})",
    "for q in {list}:\n    if q > {k}:\n        break\n    {num} += q",
    "alias{k} = {list}\nalias{k} += [{k}]",
    "alias{k} = {arr}\nalias{k} += {k}",
    "alias{k} = {num}\nalias{k} += {k}",
    "{arr} += {k}",
    "{arr} = {arr} + {k}",
    "{arr}[0] = {k}",
    "{num} += {k}",
    "list(zip([1, 2], {iter}))",
    "next({iter}, None)",
    "part{k} = list(zip([1, 2], {iter}))",
    "head{k} = next({iter}, {k})",
    "with open('b.txt', 'w') as f:\n    pass",
    "open('a.txt', 'w')",
    "open('b.txt', 'a')",
    "[x for x in zip([1], {iter})]",
    "pair{k} = list(zip({iter}, {list}))",
    "f = {k}",
    "with open('b.txt') as f:\n    part{k} = list(zip([1, 2], {iter}))",
]
USE = {
    "list": "list({n})", "nest": "[list(q) for q in {n}]", "num": "{n}", "iter": "next({n}, None)", "func": "{n}(x)",
    "cls": "{n}.v", "obj": "{n}.v", "arr": "{n}.tolist()", "own": "str(list({n}()))",
}  # fmt: skip
HIDDEN = [
    "[f.__name__ for f in REGISTRY]",
    "Base.subs",
    "helper.K",
    "helper.STATE['a']",
    "list(TABLE)",
    "getattr(f, 'name', f)",
]
SPACE = [
    "Param(x=[1, 2])", "Param(x=[1, {k}])", "Param(x=range({k} % 4))", "Param(x={list}[:3])", "Param(x=[{num}, 1])",
    "Param(x=[{func}(1), 2])", "Param(x=np.arange({k} % 3))", "Param(x=[1]) + Param(x=[i * {k} for i in range(2)])",
    "Param(x=list({own}())[:3])", "Param(x={own}({num}))",
]  # fmt: skip


class Generator:
    """Makes programs: blocks of text at the top level, and the text of the helper."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.new, self.changes, self.kinds = NEW, CHANGE, [None, *NEW, *NEW]

    def choose(self) -> None:
        """Choose what a program is about: anything, the white lists, or functions of its own."""
        self.new, self.changes, self.kinds = self.random.choice([
            (NEW, CHANGE, [None, *NEW, *NEW]),
            (NEW, QUIET, ["list", "num", "iter", "arr"]),
            (OWN_USES, OWN_CHANGE, ["list", "list", "num", "iter", "own", "own", "own"]),
        ])  # fmt: skip

    def block(self, names: dict[str, list[str]], kind: str | None) -> str:
        template = self.random.choice(self.changes if kind is None else self.new[kind])
        name = "_"
        if kind is not None:
            known = names[kind]
            name = self.random.choice(known) if self.random.random() < 0.15 else f"{kind}{len(known)}"
        given = {each: self.random.choice(known) for each, known in names.items()}
        text = template.format(n=name, k=self.random.randint(2, 9), **given)
        if kind is not None and name not in names[kind]:
            names[kind].append(name)
        return text

    def program(self) -> list[str]:
        self.choose()
        names = {kind: [f"{kind}0"] for kind in NEW}
        blocks = [
            "f = 0", "list0 = [5, 6]", "nest0 = [[1], [2]]", "num0 = 4", "iter0 = iter([7, 8, 9])", "arr0 = np.ones(3)",
            "def func0(x):\n    return x + 1", "class cls0(Model):\n    v = 2", "obj0 = Model()",
            "def own0(q=0):\n    return [5, 6]",
        ]  # fmt: skip
        for _ in range(self.random.randint(3, 14)):
            kind = self.random.choice(self.kinds) if self.random.random() < 0.7 else None
            blocks.append(self.block(names, kind))
        given = {each: self.random.choice(known) for each, known in names.items()}
        space = self.random.choice(SPACE).format(k=self.random.randint(2, 9), **given)
        everything = [(kind, name) for kind, known in names.items() for name in known]
        used = self.random.sample(everything, min(len(everything), self.random.randint(3, 10)))
        values = [USE[kind].format(n=name) for kind, name in used]
        values += self.random.sample(HIDDEN, self.random.randint(0, 2))
        return [*blocks, f"pspace = {space}", f"def execute(x):\n    return {{'y': [{', '.join(values)}]}}"]

    def edit(self, blocks: list[str], helper: str) -> tuple[str, list[str], str]:
        """Return what was done, and the edited program."""
        edited, place = list(blocks), self.random.randrange(len(blocks))
        how = self.random.choice(["number", "number", "delete", "swap", "insert", "helper", "move"])
        if how == "number":
            edited[place] = self._renumber(edited[place])
        elif how == "delete":
            del edited[place]
        elif how == "swap":
            edited[place - 1 : place + 1] = reversed(edited[place - 1 : place + 1])
        elif how == "insert":
            names = {kind: [n for n in self._names(blocks) if n.startswith(kind)] for kind in NEW}
            edited.insert(place, self.block(names, None))
        elif how == "move":
            edited.insert(self.random.randrange(len(blocks)), edited.pop(place))
        else:
            helper = self._renumber(helper)
        return how, edited, helper

    def _names(self, blocks: list[str]) -> list[str]:
        return re.findall(rf"\b(?:{'|'.join(NEW)})\d+\b", "\n".join(blocks))

    def _renumber(self, text: str) -> str:
        spans = [match.span() for match in re.finditer(r"(?<![\w.])\d+\b", text)]
        if not spans:
            return text
        start, end = self.random.choice(spans)
        return f"{text[:start]}{int(text[start:end]) + self.random.randint(1, 3)}{text[end:]}"


def text_of(blocks: list[str]) -> str:
    return HEAD + "\n".join(blocks) + "\n"


def run_plainly(
    task: str, helper: str, files: Mapping[str, str] = FILES, reads: list[list[Any]] | None = None
) -> list[list[str]] | None:
    """Return the rows and what `execute` returns for each, in a fresh process; None if the file raises.

    Adds to `reads` which files were read: name of the file, path and line of the innermost statement of a
    module that is being loaded; line 0 for those that rows read.
    """
    read, write = os.pipe()
    with tempfile.TemporaryDirectory() as folder:
        child = os.fork()
        if child == 0:
            try:
                data = json.dumps(_run(task, helper, files, folder)).encode()
            except BaseException:
                data = b"null"
            finally:
                os.write(write, data[:60_000])
                os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as file:
            data = file.read()
        os.waitpid(child, 0)
    try:
        said = json.loads(data or b"null")
    except ValueError:
        return None
    if said is not None and reads is not None:
        reads += said["reads"]
    return said and said["values"]


def _run(task: str, helper: str, files: Mapping[str, str], folder: str) -> dict[str, Any]:
    signal.alarm(5)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    os.chdir(folder)
    for name, text in files.items():
        path = Path(name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    reads: list[tuple[str, str, int]] = []

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and str(arguments[0]) in files:
            frame = sys._getframe()
            while frame and (frame.f_code.co_name, frame.f_code.co_filename) not in places:
                frame = frame.f_back
            path = os.path.relpath(arguments[0], folder)
            place = f"psy-tasks/{frame.f_code.co_filename}.py" if frame else ""
            reads.append((path, place, frame.f_lineno if frame else 0))

    places = {("<module>", name) for name in ("helper", "task_x")}
    sys.addaudithook(note)
    for name, text in (("helper", helper), ("task_x", task)):
        module = sys.modules[name] = types.ModuleType(name)
        exec(compile(text, name, "exec"), vars(module))
    rows = [dict(row) for row in module.pspace]
    said = [repr(rows), *(repr(module.execute(**row)) for row in rows)]
    return {"values": [re.sub("0x[0-9a-f]+", "", each) for each in said], "reads": reads}


def digest(task: str, helper: str) -> dict[str, str]:
    files = {"psy-tasks/task_x.py": task.encode(), "psy-tasks/helper.py": helper.encode()}
    return digest_sources("psy-tasks/task_x.py", None, files, {"helper": "psy-tasks/helper.py"})


def find_unattributed(
    task: str, values: list[list[str]], reads: Sequence[Sequence[Any]], name: str, text: str
) -> str:
    """Return what is wrong where a file of other content gives other values: '' if nothing is."""
    new = run_plainly(task, HELPER, {**FILES, name: text})
    if new is None or new == values:
        return ""
    files = {"psy-tasks/task_x.py": task.encode(), "psy-tasks/helper.py": HELPER.encode()}
    source = Source(
        task="psy-tasks/task_x.py", conf=None, files=files, modules={"helper": "psy-tasks/helper.py"},
        code="", space="", definitions={},
    )  # fmt: skip
    found = {
        part
        for file, path, line in reads
        for (place, first, last), part in find_parts(source).items()
        if file == name and (not line or (place == path and first <= line <= last))
    }
    needed = "space" if new[0] != values[0] else "code"
    if any(file == name and not line for file, _, line in reads) or any(needed in part for part in found):
        return ""
    return f"{name}: {values} -> {new}, counts for {sorted(found)} of {needed}\n{task}"


def find_misses(seed: int, programs: int, edits: int = 4) -> tuple[list[str], Counter[str]]:
    """Return the edits that digests miss, and counts."""
    generator, counts, misses = Generator(seed), Counter[str](), []
    while counts["programs"] < programs:
        blocks = generator.program()
        task = text_of(blocks)
        reads: list[list[Any]] = []
        values = run_plainly(task, HELPER, reads=reads)
        if values is None:
            counts["programs that raise"] += 1
            continue
        counts["programs"] += 1
        before = digest(task, HELPER)
        for name, text in {"a.json": "[5, 4]", "b.txt": "8\n9\n7\n", "c.csv": "x,y\n5,6\n"}.items():
            if any(read[0] == name for read in reads):
                misses += filter(None, [find_unattributed(task, values, reads, name, text)])
                counts["files of other content"] += 1
        for _ in range(edits):
            how, edited, helper = generator.edit(blocks, HELPER)
            new_task = text_of(edited)
            new_values = None if (new_task, helper) == (task, HELPER) else run_plainly(new_task, helper)
            if new_values is None:
                continue
            after = digest(new_task, helper)
            same_rows = values[0] == new_values[0]
            same = same_rows and values == new_values
            counts[
                f"{how}: values {'same' if same else 'differ'}, digest {'same' if before == after else 'differs'}"
            ] += 1
            wrong = (not same_rows and before["space"] == after["space"]) or (
                same_rows and not same and before["code"] == after["code"]
            )
            if wrong:
                misses.append(
                    f"{how}: {values} -> {new_values}\n--- before\n{task}\n--- after\n{new_task}\n{helper if how == 'helper' else ''}"
                )
    return misses, counts


if __name__ == "__main__":
    import numpy as np

    import psyrun

    np.zeros(1), psyrun.Param(x=[1])  # loaded once for all forks
    parser = argparse.ArgumentParser()
    parser.add_argument("--programs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    misses, counts = find_misses(options.seed, options.programs)
    for each in misses[:8]:
        print(each)
    for name, number in sorted(counts.items()):
        print(f"{number:7} {name}")
    print(f"{len(misses)} edits missed")
    sys.exit(bool(misses))
