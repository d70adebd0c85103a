"""The Sigma language, construct by construct: a detection, an event, and whether the rule is true for it.

Each case is decided three times: by the plan, by the plain semantics of `detections.masks`, and by the code that is
written for a notebook. `docs/sigma.md` names the sections of `CASES`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import polars as pl
import pytest

from detections.atoms import atoms_of
from detections.compile import CompiledRule, compile_rule
from detections.load import load_rules
from detections.masks import atom_masks, resolve_fields
from detections.plan import Plan
from detections.render import RenderError, render
from detections.rule import Refusal, Rule
from detections.verdict import combine
from rules_by_hand import b64, frame_of, write_rule

Event = dict[str, str | None]
Case = tuple[str, Event, bool]

CASES: Final[dict[str, list[Case]]] = {
    "equality": [
        ("sel: {A: Cmd}", {"A": "cMD"}, True),
        ("sel: {A: Cmd}", {"A": "cmd "}, False),
        ("sel: {A: [x, y]}", {"A": "Y"}, True),
        ("sel: {A: [x, y]}", {"A": "xy"}, False),
        ("sel: {A: ПАРОЛЬ}", {"A": "пароль"}, True),
        ("sel: {a: x}", {"A": "x"}, True),
        ('sel: {A: "x\\ny"}', {"A": "X\nY"}, True),
        ('sel: {A: "a\\0b"}', {"A": "A\x00B"}, True),
        ('sel: {A: "a\\0b"}', {"A": "a"}, False),
        ("sel: {A: '%x%'}", {"A": "%X%"}, True),  # no placeholder without `expand`
        ("sel: {A: '$x.(y'}", {"A": "$X.(Y"}, True),
    ],
    "wildcards": [
        ("sel: {A: 'a*'}", {"A": "A"}, True),
        ("sel: {A: 'a*'}", {"A": "ba"}, False),
        ("sel: {A: '*a'}", {"A": "bA"}, True),
        ("sel: {A: '*a*'}", {"A": "bab"}, True),
        ("sel: {A: 'a**b'}", {"A": "ab"}, True),
        ("sel: {A: 'a*b*c'}", {"A": "axbxc"}, True),
        ("sel: {A: 'a*b*c'}", {"A": "acb"}, False),
        ("sel: {A: '?'}", {"A": "é"}, True),
        ("sel: {A: '?'}", {"A": ""}, False),
        ("sel: {A: '?'}", {"A": "ab"}, False),
        ("sel: {A: '??'}", {"A": "ab"}, True),
        ("sel: {A: 'a?*'}", {"A": "a"}, False),
        ("sel: {A: 'a?*'}", {"A": "ab"}, True),
        ("sel: {A: '*?'}", {"A": "\n"}, True),
        ("sel: {A: '**'}", {"A": ""}, True),
        ("sel: {A: '**'}", {"A": None}, False),
        ("sel: {A|contains: 'a?c'}", {"A": "xabcx"}, True),
        ("sel: {A|startswith: 'a?c'}", {"A": "abcx"}, True),
        ("sel: {A|startswith: 'a?c'}", {"A": "xabc"}, False),
        ("sel: {A|endswith: 'a*c'}", {"A": "xabbc"}, True),
        ("sel: {A|endswith: 'a*c'}", {"A": "abcx"}, False),
        ("sel: {A|contains: '*a*'}", {"A": "bab"}, True),
        ("sel: {A|endswith: 'a*'}", {"A": "bab"}, True),
    ],
    "escapes": [
        (r"sel: {A: 'a\*'}", {"A": "a*"}, True),
        (r"sel: {A: 'a\*'}", {"A": "ab"}, False),
        (r"sel: {A: 'a\\*'}", {"A": "a\\bc"}, True),
        (r"sel: {A: 'a\\*'}", {"A": "a*"}, False),
        (r"sel: {A: 'a\\\*'}", {"A": "a\\*"}, True),
        (r"sel: {A: 'a\\\*'}", {"A": "a\\b"}, False),
        (r"sel: {A: 'a\?b'}", {"A": "a?b"}, True),
        (r"sel: {A: 'a\?b'}", {"A": "axb"}, False),
        (r"sel: {A: 'a\\?b'}", {"A": "a\\xb"}, True),
        (r"sel: {A: 'a\'}", {"A": "a\\"}, True),
        (r"sel: {A: 'a\\'}", {"A": "a\\"}, True),
        (r"sel: {A: 'a\\'}", {"A": "a\\\\"}, False),
        (r"sel: {A: '\\srv\share'}", {"A": r"\srv\share"}, True),  # two backslashes are one
        (r"sel: {A: '\\\\srv\share'}", {"A": r"\\srv\share"}, True),
        (r"sel: {A|endswith: '\'}", {"A": "c:\\"}, True),
        (r"sel: {A|startswith: '\'}", {"A": "\\x"}, True),
        (r"sel: {A|contains: '\\'}", {"A": "a\\b"}, True),
        (r"sel: {A|contains: 'a\*b'}", {"A": "xa*bx"}, True),
        (r"sel: {A|contains: 'a\*b'}", {"A": "xaabx"}, False),
        (r"sel: {A: '\n'}", {"A": r"\n"}, True),  # no escape of Sigma's
    ],
    "null and empty": [
        ("sel: {A: null}", {"A": None}, True),
        ("sel: {A: null}", {"B": "x"}, True),
        ("sel: {A: null}", {"A": ""}, False),
        ("sel: {A: ''}", {"A": ""}, True),
        ("sel: {A: ''}", {"A": " "}, False),
        ("sel: {A: [null, x]}", {"A": "x"}, True),
        ("sel: {A: [null, x]}", {"A": None}, True),
        ("sel: {A: [null, x]}", {"A": "y"}, False),
        ("sel: {A: ['', x]}", {"A": ""}, True),
        ("sel: {A|contains: ''}", {"A": "x"}, True),
        ("sel: {A|contains: ''}", {"A": None}, False),
        ("sel: {A|neq: null}", {"A": "x"}, True),
        ("sel: {A|neq: null}", {"B": "x"}, False),
    ],
    "numbers": [
        ("sel: {A: 1}", {"A": "1"}, True),
        ("sel: {A: '1'}", {"A": "1"}, True),
        ("sel: {A: 1}", {"A": "01"}, False),
        ("sel: {A: 1}", {"A": "1.0"}, False),
        ("sel: {A: 0x10}", {"A": "16"}, True),  # YAML's own notation
        ("sel: {A: -5}", {"A": "-5"}, True),
        ("sel: {A: [1, '2', x]}", {"A": "2"}, True),
        ("sel: {A|startswith: 44}", {"A": "443"}, True),
        ("sel: {A|endswith: 3}", {"A": "443"}, True),
        ("sel: {A|re: 44}", {"A": "1443"}, True),
        ("sel: {A: true}", {"A": "TRUE"}, True),
        ("sel: {A: false}", {"A": "true"}, False),
        ("sel: {A: [true, 1]}", {"A": "1"}, True),
        ("sel: {A: '123456789012345678901234567890'}", {"A": "123456789012345678901234567890"}, True),
        ("sel: {A: 123456789012345678901234567890}", {"A": "123456789012345678901234567890"}, True),
        ("sel: {A: 123456789012345678901234567890}", {"A": "123456789012345678901234567891"}, False),
        ("sel: {A: [5, 9007199254740993]}", {"A": "9007199254740993"}, True),
        ("sel: {A|neq: 9007199254740993}", {"A": "9007199254740993"}, False),
        ("sel: [9007199254740993]", {"A": "9007199254740993"}, True),
        ("sel: {A: -18446744073709551617}", {"A": "-18446744073709551617"}, True),
        ("sel: {A|contains: 18446744073709551617}", {"A": "x18446744073709551617"}, True),
        ("sel: {A|gt: 18446744073709551617}", {"A": "1e30"}, True),
        ("sel: {A|lt: 18446744073709551617}", {"A": "1e30"}, False),
        ("sel: {A|year|lt: 18446744073709551617}", {"A": "2026-01-01"}, True),
        ("sel: {A|year|gt: -18446744073709551617}", {"A": "2026-01-01"}, True),
        ("sel: {A|year|gt: 18446744073709551617}", {"A": "2026-01-01"}, False),
    ],
    "lists and maps": [
        ("sel: {A: x, B: y}", {"A": "x", "B": "y"}, True),
        ("sel: {A: x, B: y}", {"A": "x"}, False),
        ("sel: {A: [x, y], B: [z]}", {"A": "y", "B": "z"}, True),
        ("sel: [{A: x}, {B: y}]", {"B": "y"}, True),
        ("sel: [{A: x, B: y}, {A: z}]", {"A": "x", "B": "n"}, False),
        ("sel: [[{A: x}], [{B: y}, {C: z}]]", {"C": "z"}, True),
        ("sel: [[{A: x, B: q}], [{B: y}]]", {"A": "x"}, False),
        ("sel: [{A|contains: [x, y]}, keyword]", {"Z": "a keyword b"}, True),
        ("sel: [{A|contains: [x, y]}, keyword]", {"A": "ay"}, True),
    ],
    "contains, startswith, endswith": [
        ("sel: {A|contains: b}", {"A": "aBc"}, True),
        ("sel: {A|contains: [x, b]}", {"A": "abc"}, True),
        ("sel: {A|startswith: ab}", {"A": "ABC"}, True),
        ("sel: {A|startswith: b}", {"A": "abc"}, False),
        ("sel: {A|endswith: bc}", {"A": "ABC"}, True),
        ("sel: {A|endswith: b}", {"A": "abc"}, False),
        ("sel: {A|startswith|endswith: b}", {"A": "abc"}, True),  # wildcards at both ends
        ("sel: {A|contains: 'a.c'}", {"A": "abc"}, False),
    ],
    "all": [
        ("sel: {A|contains|all: [a, b]}", {"A": "ba"}, True),
        ("sel: {A|contains|all: [a, b]}", {"A": "a"}, False),
        ("sel: {A|all|contains: [a, b]}", {"A": "b.a"}, True),
        ("sel: {A|all: ['a*', '*b']}", {"A": "axb"}, True),
        ("sel: {A|all: ['a*', '*b']}", {"A": "ax"}, False),
        ("sel: {A|re|all: ['a+', 'b+']}", {"A": "ba"}, True),
        ("sel: {A|all|re: ['a+', 'b+']}", {"A": "a"}, False),
        ("sel: {A|contains|all|cased: [A, b]}", {"A": "bA"}, True),
        ("sel: {A|contains|all|cased: [A, b]}", {"A": "ba"}, False),
        ("sel: {A|startswith|all: [a, ab]}", {"A": "abc"}, True),
        ("sel: {A|contains|all: x}", {"A": "x"}, True),
    ],
    "cased": [
        ("sel: {A|cased: Ab}", {"A": "Ab"}, True),
        ("sel: {A|cased: Ab}", {"A": "ab"}, False),
        ("sel: {A|cased|contains: Ab}", {"A": "xAbx"}, True),
        ("sel: {A|contains|cased: Ab}", {"A": "xabx"}, False),
        ("sel: {A|startswith|cased: Ab}", {"A": "Abx"}, True),
        ("sel: {A|endswith|cased: Ab}", {"A": "xAB"}, False),
        ("sel: {A|cased: 'A*b?C'}", {"A": "AxbyC"}, True),
        ("sel: {A|cased: 'A*b?C'}", {"A": "axbyc"}, False),
        ("sel: {A|cased|windash|contains: ' -P'}", {"A": "x /P"}, True),
        ("sel: {A|cased|windash|contains: ' -P'}", {"A": "x /p"}, False),  # pySigma forgets the case here
        ("sel: {A|windash|contains|cased: ' -P'}", {"A": "x /p"}, False),
        ("sel: {A|base64|cased|contains: foo}", {"A": b64("foo").upper()}, False),
        ("sel: {A|base64|contains: foo}", {"A": b64("foo").upper()}, True),
        ("sel: {A|cased|neq: Ab}", {"A": "ab"}, True),
        ("sel: {'|cased': Ab}", {"A": "xAbx"}, True),
        ("sel: {'|cased': Ab}", {"A": "xabx"}, False),
    ],
    "re": [
        ("sel: {A|re: '^a.c$'}", {"A": "abc"}, True),
        ("sel: {A|re: 'B'}", {"A": "abc"}, False),
        ("sel: {A|re: ''}", {"A": "abc"}, True),
        ("sel: {A|re: ''}", {"A": None}, False),
        ("sel: {A|re|i: 'B'}", {"A": "abc"}, True),
        ("sel: {A|re|ignorecase: 'B'}", {"A": "abc"}, True),
        ("sel: {A|re|m: '^b'}", {"A": "a\nb"}, True),
        ("sel: {A|re|multiline: '^b'}", {"A": "a\nb"}, True),
        ("sel: {A|re|s: 'a.b'}", {"A": "a\nb"}, True),
        ("sel: {A|re|dotall: 'a.b'}", {"A": "a\nb"}, True),
        ("sel: {A|re: 'a.b'}", {"A": "a\nb"}, False),
        ("sel: {A|re|i|m|s: '^A.b$'}", {"A": "x\na\nB\ny"}, True),
        ("sel: {A|re|i|s: '^A.b$'}", {"A": "x\na\nB\ny"}, False),
        ("sel: {A|re|contains: 'a+'}", {"A": "xaay"}, True),
        ("sel: {A|re|startswith: 'a+|b'}", {"A": "bx"}, True),
        ("sel: {A|re|startswith: 'a+|b'}", {"A": "xb"}, False),
        ("sel: {A|re|endswith: 'a+|b'}", {"A": "xb"}, True),
        ("sel: {A|re|endswith: 'a+|b'}", {"A": "bx"}, False),
        ("sel: {A|re|i|startswith: 'a'}", {"A": "Ax"}, True),
        ("sel: {A|re|startswith: '(?=a)'}", {"A": "xa"}, False),
        ("sel: {A|re|endswith: 'b(?<=b)'}", {"A": "ab"}, True),
        ("sel: {A|re|neq: 'a'}", {"A": "b"}, True),
        (r"sel: {A|re: '\*\?'}", {"A": "a*?"}, True),
        (r"sel: {A|re: '\d{2,3}'}", {"A": "a12"}, True),
        ("sel: {A|re: '(?i)B'}", {"A": "ab"}, True),
        (r"sel: {A|re: '^\\\\x'}", {"A": r"\\x"}, True),
        ("sel: {'|re|i': 'B+'}", {"A": "abbc"}, True),
        ("sel: {A|re: '(?<!x)b'}", {"A": "ab"}, True),
        ("sel: {A|re: 'a++b'}", {"A": "aab"}, True),
        (r"sel: {A|re: '^\x{41}\u{42}$'}", {"A": "AB"}, True),  # what Python's re does not know, or warns of
        ("sel: {A|re: '^[[:alpha:]]+$'}", {"A": "ab"}, True),
        ("sel: {A|re: '^[[:alpha:]]+$'}", {"A": "a1"}, False),
        ("sel: {A|re: '^[a-z--b]+$'}", {"A": "ac"}, True),
        ("sel: {A|re: '^[a-z--b]+$'}", {"A": "ab"}, False),
        ("sel: {A|re: '[a-z&&[^b]]'}", {"A": "b"}, False),
        (r"sel: {A|re|i: '^\p{Lu}\z'}", {"A": "é"}, True),
        (r"sel: {A|re|contains: '^\p{L}$'}", {"A": "é"}, True),
        (r"sel: {A|re|startswith: '\pL|b'}", {"A": "é1"}, True),
        (r"sel: {A|re|endswith: '\pL'}", {"A": "é1"}, False),
        ("sel: {A|re: 'x(?i)B'}", {"A": "xb"}, True),
        ("sel: {A|re: '(?<name>a)(?P=name)'}", {"A": "aa"}, True),
        ("sel: {A|re|all: ['(?<one>a)', '[[:digit:]]']}", {"A": "a1"}, True),
        (r'sel: {A|re: "\x1are61\x1a"}', {"A": "a"}, False),  # what pySigma sees of a regex
        (r'sel: {A|re: "\x1are61\x1a"}', {"A": "\x1are61\x1a"}, True),
    ],
    "base64": [
        ("sel: {A|base64: 'a b'}", {"A": b64("a b")}, True),
        ("sel: {A|base64|startswith: http}", {"A": b64("http://")}, False),  # http is no whole group of three
        ("sel: {A|base64|startswith: 'http:/'}", {"A": b64("http://")}, True),
        ("sel: {A|base64: 'é'}", {"A": b64("é")}, True),
        (r"sel: {A|base64: 'a\*b'}", {"A": b64("a*b")}, True),
        ("sel: {A|base64|contains|all: [foo, bar]}", {"A": b64("foobar")}, True),
        ("sel: {A|base64: 443}", {"A": b64("443")}, True),
        ("sel: {A|base64offset|contains: foo}", {"A": b64("1foo2")}, True),
        ("sel: {A|base64offset|contains: foo}", {"A": b64("12foo")}, True),
        ("sel: {A|base64offset|contains: foo}", {"A": b64("fo")}, False),
        ("sel: {A|base64offset|endswith: 'foo'}", {"A": b64("123foo")}, True),
        ("sel: {'|base64offset|contains': foobar}", {"A": "x " + b64("1foobar2")}, True),
        (r"sel: {A|base64offset|contains: 'x\?y'}", {"A": b64("abx?yc")}, True),
    ],
    "wide": [
        ("sel: {A|wide|base64offset|contains: foo}", {"A": b64("a foo".encode("utf-16-le"))}, True),
        ("sel: {A|utf16le|base64offset|contains: foo}", {"A": b64("a foo".encode("utf-16-le"))}, True),
        ("sel: {A|wide|base64offset|contains: foo}", {"A": b64("a foo")}, False),
        ("sel: {A|wide|base64offset|contains: 'été'}", {"A": b64("l'été".encode("utf-16-le"))}, True),
        ("sel: {A|wide|base64: '密'}", {"A": b64("密".encode("utf-16-le"))}, True),
        ("sel: {A|wide|base64: '😀'}", {"A": b64("😀".encode("utf-16-le"))}, True),
        ("sel: {A|utf16be|base64: 'é'}", {"A": b64("é".encode("utf-16-be"))}, True),
        ("sel: {A|utf16|base64: 'é'}", {"A": b64(b"\xff\xfe" + "é".encode("utf-16-le"))}, True),
        ("sel: {A|wide|windash|contains: x}", {"A": "x\x00"}, True),
        ("sel: {A|wide: ab}", {"A": "a\x00b\x00"}, True),
        ("sel: {A|wide|contains: ab}", {"A": "xa\x00B\x00x"}, True),
        ("sel: {A|utf16be: ab}", {"A": "\x00a\x00b"}, True),
        ("sel: {A|utf16: ab}", {"A": "\ufeffa\x00b\x00"}, True),
        ("sel: {A|wide: 'a*b'}", {"A": "a\x00xxb\x00"}, True),
        ("sel: {A|wide: 'ā'}", {"A": "\x01\x01"}, True),  # whose bytes are text again
        ("sel: {A|windash|wide|base64offset|contains: ' -e'}", {"A": b64("x /e".encode("utf-16-le"))}, True),
        ("sel: {A|windash|wide|base64offset|contains: ' -e'}", {"A": b64("x –e".encode("utf-16-le"))}, True),
        ("sel: {A|wide|base64offset|contains|all: [foo, bar]}", {"A": b64("foo".encode("utf-16-le"))}, False),
        ('sel: {A|wide|base64: "\\x1a41\\x1aé"}', {"A": b64("\x1a41\x1aé".encode("utf-16-le"))}, True),
    ],
    "windash": [
        ("sel: {A|windash|contains: ' -a'}", {"A": "x -a"}, True),
        ("sel: {A|windash|contains: ' -a'}", {"A": "x /a"}, True),
        ("sel: {A|windash|contains: ' -a'}", {"A": "x –a"}, True),
        ("sel: {A|windash|contains: ' -a'}", {"A": "x —a"}, True),
        ("sel: {A|windash|contains: ' -a'}", {"A": "x ―a"}, True),
        ("sel: {A|windash|contains: ' /a'}", {"A": "x -a"}, True),
        ("sel: {A|windash|contains: ' –a'}", {"A": "x -a"}, True),
        ("sel: {A|windash|contains: ' —a'}", {"A": "x /a"}, True),
        ("sel: {A|windash|contains: ' ―a'}", {"A": "x —a"}, True),
        ("sel: {A|windash|contains: ' -a'}", {"A": "x +a"}, False),
        ("sel: {A|windash|contains: 'a-b'}", {"A": "a/b"}, False),  # within a word
        ("sel: {A|windash|contains: 'a-b'}", {"A": "a-b"}, True),
        ("sel: {A|windash: '-a -b'}", {"A": "/a —b"}, True),
        ("sel: {A|windash|contains: '--ab'}", {"A": "-/ab"}, True),
        ("sel: {A|windash|startswith: '-a'}", {"A": "/a x"}, True),
        ("sel: {A|windash|endswith: ' /a'}", {"A": "x -a"}, True),
        ("sel: {A|contains|windash: ' -a'}", {"A": "x /ab"}, True),
        ("sel: {A|windash|contains|all: [' -a', ' -b']}", {"A": "x /a /b"}, True),
        ("sel: {A|windash|contains|all: [' -a', ' -b']}", {"A": "x /a b"}, False),
        ("sel: {A|windash: '-a*b'}", {"A": "/axxb"}, True),
        ("sel: {'|windash': ' -a'}", {"A": "x /a"}, True),
    ],
    "cidr": [
        ("sel: {A|cidr: 192.168.0.0/16}", {"A": "192.168.255.1"}, True),
        ("sel: {A|cidr: 192.168.0.0/16}", {"A": "192.169.0.0"}, False),
        ("sel: {A|cidr: 192.168.0.0/23}", {"A": "192.168.1.255"}, True),
        ("sel: {A|cidr: 192.168.0.0/23}", {"A": "192.168.2.0"}, False),
        ("sel: {A|cidr: 10.0.0.1}", {"A": "10.0.0.1"}, True),
        ("sel: {A|cidr: 0.0.0.0/0}", {"A": "1.2.3.4"}, True),
        ("sel: {A|cidr: 0.0.0.0/0}", {"A": "::1"}, False),
        ("sel: {A|cidr: 0.0.0.0/0}", {"A": "host"}, False),
        ("sel: {A|cidr: 10.0.0.0/255.0.0.0}", {"A": "10.1.1.1"}, True),
        ("sel: {A|cidr: '2001:db8::/32'}", {"A": "2001:0DB8::1"}, True),
        ("sel: {A|cidr: '2001:db8::/32'}", {"A": "2001:db9::1"}, False),
        ("sel: {A|cidr: '::/0'}", {"A": "fe80::1"}, True),
        ("sel: {A|cidr: [10.0.0.0/8, 'fe80::/10']}", {"A": "fe80::1"}, True),
        ("sel: {A|cidr|neq: 10.0.0.0/8}", {"A": "11.0.0.1"}, True),
        ("sel: {A|neq|cidr: 10.0.0.0/8}", {"A": "10.0.0.1"}, False),
        ("sel: {A|cidr|all: [10.0.0.0/8, 10.1.0.0/16]}", {"A": "10.1.0.1"}, True),
        ("sel: {A|cidr|all: [10.0.0.0/8, 10.1.0.0/16]}", {"A": "10.2.0.1"}, False),
    ],
    "gt, gte, lt, lte": [
        ("sel: {A|gt: 5}", {"A": "5.1"}, True),
        ("sel: {A|gt: 5}", {"A": "5"}, False),
        ("sel: {A|gte: 5}", {"A": "5.0"}, True),
        ("sel: {A|lt: 5}", {"A": "-6"}, True),
        ("sel: {A|lte: 5}", {"A": "5.01"}, False),
        ("sel: {A|gt: '5'}", {"A": "6"}, True),
        ("sel: {A|gt: 1.5}", {"A": "1.6"}, True),
        ("sel: {A|gt: '1.5e3'}", {"A": "1501"}, True),
        ("sel: {A|gt: 5}", {"A": "six"}, False),
        ("sel: {A|lt: 5}", {"A": ""}, False),
        ("sel: {A|lt: 5}", {"A": "0x1"}, False),
        ("sel: {A|lt: 5}", {"A": " 1"}, False),
        ("sel: {A|lt: 5}", {"A": "-inf"}, False),
        ("sel: {A|lt|neq: 5}", {"A": "6"}, True),
        ("sel: {A|lt|neq: 5}", {"A": "many"}, True),
        ("sel: {A|gt: [5, 50]}", {"A": "6"}, True),
        ("sel: {A|gt|all: [5, 50]}", {"A": "6"}, False),
        ("sel: {A|gt: 5, A|lt: 9}", {"A": "7"}, True),
        ("sel: {A|gt: 5, A|lt: 9}", {"A": "9"}, False),
    ],
    "neq": [
        ("sel: {A|neq: x}", {"A": "y"}, True),
        ("sel: {A|neq: x}", {"A": "X"}, False),
        ("sel: {A|neq: x}", {"B": "y"}, True),  # a field that is not there is not x
        ("sel: {A|neq: [x, y]}", {"A": "y"}, False),
        ("sel: {A|neq: [x, y]}", {"A": "z"}, True),
        ("sel: {A|contains|neq: x}", {"A": "axb"}, False),
        ("sel: {A|neq|contains: x}", {"A": "ab"}, True),
        ("sel: {A|contains|all|neq: [a, b]}", {"A": "a"}, True),
        ("sel: {A|contains|all|neq: [a, b]}", {"A": "ab"}, False),
        ("sel: {A|neq: x, B: y}", {"A": "z", "B": "y"}, True),
        ("sel: {A|windash|contains|neq: ' -a'}", {"A": "x /a"}, False),
    ],
    "exists": [
        ("sel: {A|exists: true}", {"A": "x"}, True),
        ("sel: {A|exists: yes}", {"A": ""}, True),
        ("sel: {A|exists: true}", {"B": "x"}, False),
        ("sel: {A|exists: false}", {"A": None}, True),
        ("sel: {A|exists|neq: true}", {"B": "x"}, True),
        ("sel: {A|neq|exists: true}", {"A": "x"}, False),
    ],
    "fieldref": [
        ("sel: {A|fieldref: B}", {"A": "X", "B": "x"}, True),
        ("sel: {A|fieldref: b}", {"A": "X", "B": "x"}, True),
        ("sel: {A|fieldref: B}", {"A": "x", "B": "y"}, False),
        ("sel: {A|fieldref: B}", {"A": None, "B": None}, False),
        ("sel: {A|fieldref: B}", {"A": "", "B": ""}, True),
        ("sel: {A|fieldref: [B, C]}", {"A": "x", "B": "y", "C": "X"}, True),
        ("sel: {A|fieldref|all: [B, C]}", {"A": "x", "B": "y", "C": "X"}, False),
        ("sel: {A|fieldref|neq: B}", {"A": "x", "B": "y"}, True),
        ("sel: {A|fieldref|neq: B}", {"A": "x", "B": "X"}, False),
        ("sel: {A|fieldref|neq: B}", {"A": "x"}, True),
        ("sel: {A|fieldref|startswith: B}", {"A": "Xy", "B": "x"}, True),
        ("sel: {A|fieldref|endswith: B}", {"A": "yX", "B": "x"}, True),
        ("sel: {A|fieldref|contains: B}", {"A": "yXy", "B": "x"}, True),
        ("sel: {A|fieldref|contains: B}", {"A": "abc", "B": "a.c"}, False),
        ("sel: {A|fieldref|cased: B}", {"A": "X", "B": "x"}, False),
        ("sel: {A|cased|fieldref: B}", {"A": "X", "B": "X"}, True),
        ("sel: {A|fieldref|cased|startswith: B}", {"A": "Xy", "B": "x"}, False),
        ("sel: {A|fieldref|startswith|cased: B}", {"A": "Xy", "B": "X"}, True),
        ("sel: {A|fieldref|endswith|cased: B}", {"A": "yX", "B": "X"}, True),
        ("sel: {A|fieldref|contains|cased: B}", {"A": "yXy", "B": "x"}, False),
        ("sel: {A|fieldref|contains|cased|neq: B}", {"A": "yXy", "B": "x"}, True),
    ],
    "times": [
        ("sel: {A|hour: 22}", {"A": "2026-03-01T22:15:30Z"}, True),
        ("sel: {A|hour: 22}", {"A": "2026-03-01 22:15:30.123"}, True),  # Sysmon's UtcTime
        ("sel: {A|hour: '22'}", {"A": "2026-03-01T22:15:30.1234567Z"}, True),
        ("sel: {A|hour: 21}", {"A": "2026-03-01T22:15:30+01:00"}, True),
        ("sel: {A|hour: 22}", {"A": "2026-03-01T22:15:30+01:00"}, False),
        ("sel: {A|hour: 22}", {"A": "1772403330"}, True),
        ("sel: {A|hour: 22}", {"A": "1772403330123"}, True),
        ("sel: {A|hour: 0}", {"A": "2026-03-01"}, True),
        ("sel: {A|hour: [1, 22]}", {"A": "2026-03-01T22:15Z"}, True),
        ("sel: {A|hour: 1}", {"A": "4624"}, False),
        ("sel: {A|hour: 1}", {"A": "soon"}, False),
        ("sel: {A|hour: 1}", {"A": "2026-02-30T01:00Z"}, False),
        ("sel: {A|hour: 1}", {"A": None}, False),
        ("sel: {A|hour|neq: 1}", {"A": "soon"}, True),
        ("sel: {A|minute: 15}", {"A": "2026-03-01T22:15:30Z"}, True),
        ("sel: {A|day: 28}", {"A": "2026-03-01T00:30:00+02:00"}, True),
        ("sel: {A|week: 9}", {"A": "2026-03-01T22:15:30Z"}, True),
        ("sel: {A|week: 53}", {"A": "2027-01-01T00:00:00Z"}, True),  # ISO: the week of its Thursday
        ("sel: {A|month: 3}", {"A": "2026-03-01T22:15:30Z"}, True),
        ("sel: {A|year: 2026}", {"A": "2026-03-01T22:15:30Z"}, True),
        ("sel: {A|hour|gte: 22}", {"A": "2026-03-01T22:15:30Z"}, True),
        ("sel: {A|hour|gt: 22}", {"A": "2026-03-01T22:15:30Z"}, False),
        ("sel: {A|hour|lt: 6}", {"A": "2026-03-01T05:59:59Z"}, True),
        ("sel: {A|hour|lte: 5}", {"A": "2026-03-01T06:00:00Z"}, False),
        ("sel: {A|hour|lt: 6}", {"A": "never"}, False),
        ("sel: {A|hour|gte: 22, A|minute|lt: 30}", {"A": "2026-03-01T22:15:30Z"}, True),
    ],
    "keywords": [
        ("sel: [alpha, beta]", {"A": "xBETAx"}, True),
        ("sel: [alpha, beta]", {"A": "gamma"}, False),
        ("sel: alpha", {"A": "ALPHA"}, True),
        ("sel: {'|all': [alpha, beta]}", {"A": "alpha", "B": "beta"}, True),
        ("sel: {'|all': [alpha, beta]}", {"A": "alpha"}, False),
        ("sel: {null: [alpha, beta]}", {"A": "beta"}, True),
        ("sel: 'al*ha'", {"A": "xalphax"}, True),
        ("sel: 'al?ha'", {"A": "xalphax"}, True),
        ("sel: 'al?ha'", {"A": "alha"}, False),
        (r"sel: 'al\*ha'", {"A": "xal*hax"}, True),
        ("sel: '*alpha*'", {"A": "xalphax"}, True),
        ("sel: {'|contains': alpha}", {"A": "xalphax"}, True),
        ("sel: {'|re': 'al.ha$'}", {"A": "xalpha"}, True),
        ("sel: {'|re|all': ['^a', 'a$']}", {"A": "alpha"}, True),
        ("sel: [4625, true]", {"A": "it is True"}, True),
        ("sel: {'|neq': alpha}", {"A": "beta"}, True),
        ("sel: {'|neq': alpha}", {"A": "alpha"}, False),
        ("sel: [{'|all': [alpha, beta]}, {A: x}]", {"A": "x"}, True),
    ],
}


def flat(cases: dict[str, list[Case]]) -> list[pytest.param]:  # type: ignore[valid-type]  # pytest names no type
    return [
        pytest.param(*case, id=f"{section}-{number}")
        for section, part in cases.items()
        for number, case in enumerate(part)
    ]


def compiled(rule: Rule, placeholders: dict[str, list[str]] | None = None) -> CompiledRule:
    result = compile_rule(rule, placeholders)
    assert isinstance(result, CompiledRule), result
    return result


def by_masks(rule: CompiledRule, events: pl.DataFrame) -> bool:
    mask = combine(rule.expression, atom_masks(events, set(atoms_of(rule.expression)), resolve_fields(events.columns)))
    return mask if isinstance(mask, bool) else bool(mask[0])


def by_code(rule: CompiledRule, event: Event) -> bool | None:
    """What the code for a notebook says; None where it has no form."""
    try:
        code = render(rule.expression)
    except RenderError:
        return None
    wanted = {field for atom in atoms_of(rule.expression) for field in atom.fields}
    named = {field: next((own for own in event if own.lower() == field.lower()), field) for field in wanted}
    row = {field: event.get(own) for field, own in named.items()} | event
    frame = pl.DataFrame({name: pl.Series([value], dtype=pl.String) for name, value in row.items()})
    return frame.filter(eval(code, {"pl": pl})).height == 1  # noqa: S307 - the code just written


@pytest.mark.parametrize(("detection", "event", "expected"), flat(CASES))
def test_language(tmp_path: Path, detection: str, event: Event, expected: bool) -> None:
    rule = write_rule(tmp_path, detection)
    frame = frame_of([event])
    made = compiled(rule)
    assert by_masks(made, frame.events) is expected
    assert (Plan.build([rule]).match(frame).height == 1) is expected
    code = by_code(made, event)
    assert code is expected if code is not None else made.slow


CONDITIONS: Final[list[tuple[str, set[str], bool]]] = [
    ("a", {"a"}, True),
    ("a and b", {"a", "b"}, True),
    ("a and b and c", {"a", "b"}, False),
    ("a or b", {"b"}, True),
    ("a or b and c", {"a"}, True),
    ("a and b or c", {"c"}, True),
    ("a and (b or c)", {"c"}, False),
    ("not a and b", {"b"}, True),
    ("not a or b", {"a", "b"}, True),
    ("not (a and b)", {"a"}, True),
    ("not not not a", set(), True),
    ("a AND NOT b OR c", {"a"}, True),
    ("A_UPPER and not a", {"A_UPPER"}, True),
    ("((a))", {"a"}, True),
    ("1 of them", {"sel_2_x"}, True),
    ("1 of them", set(), False),
    ("1 of them", {"_hidden"}, False),  # a name with an underscore is not among them
    ("any of them", {"b"}, True),
    ("all of them", {"a", "b", "c", "A_UPPER", "sel_1_x", "sel_2_x", "sel_2_y", "and_more"}, True),
    ("all of them", {"a", "b", "c", "A_UPPER", "sel_1_x", "sel_2_x", "sel_2_y"}, False),
    ("1 of sel*", {"sel_2_y"}, True),
    ("1 of *_x", {"sel_1_x"}, True),
    ("1 of *_x", {"sel_2_y"}, False),
    ("1 of sel_*_x", {"sel_2_x"}, True),
    ("all of sel_*_x", {"sel_1_x", "sel_2_x"}, True),
    ("all of sel_2*", {"sel_2_x"}, False),
    ("any of sel_2*", {"sel_2_x"}, True),
    ("1 of *2*", {"sel_2_x"}, True),
    ("1 of *", {"c"}, True),
    ("1 of _*", {"_hidden"}, True),
    ("1 of sel_1_x", {"sel_1_x"}, True),
    ("not 1 of sel*", {"a"}, True),
    ("not 1 of sel*", {"sel_1_x"}, False),
    ("not all of sel*", {"sel_1_x"}, True),
    ("a and not 1 of sel*", {"a", "sel_1_x"}, False),
    ("1 of sel* and 1 of *_y", {"sel_2_y"}, True),
    ("all of sel_2* or a", {"a"}, True),
    ("1 OF THEM", {"a"}, True),
    ("ALL of sel_2*", {"sel_2_x", "sel_2_y"}, True),
    ("and_more and a", {"and_more", "a"}, True),
    ("_hidden", {"_hidden"}, True),
]
NAMES: Final = ["a", "b", "c", "A_UPPER", "sel_1_x", "sel_2_x", "sel_2_y", "and_more", "_hidden"]


@pytest.mark.parametrize(("condition", "true", "expected"), CONDITIONS)
def test_condition(tmp_path: Path, condition: str, true: set[str], expected: bool) -> None:
    rule = write_rule(tmp_path, "\n".join(f"{name}: {{F_{name}: 'yes'}}" for name in NAMES), f"'{condition}'")
    event: Event = {f"F_{name}": "yes" if name in true else "no" for name in NAMES}
    assert by_masks(compiled(rule), frame_of([event]).events) is expected


PLACEHOLDERS: Final[dict[str, list[str]]] = {
    "names": ["ann", "bob*", r"c\*d"],
    "hosts": ["pc1", "pc2"],
    "flags": ["-x", "y"],
    "parts": ["a+", r"\d"],
    "accents": ["été"],
}
EXPANDED: Final[list[Case]] = [
    ("sel: {A|expand: '%names%'}", {"A": "ANN"}, True),
    ("sel: {A|expand: '%names%'}", {"A": "bobby"}, True),  # a star in a value is a wildcard
    ("sel: {A|expand: '%names%'}", {"A": "c*d"}, True),
    ("sel: {A|expand: '%names%'}", {"A": "cxd"}, False),
    ("sel: {A|expand: '%hosts%\\%names%'}", {"A": "pc2\\ann"}, False),  # a backslash before it: no placeholder
    ("sel: {A|expand: '%hosts%.%names%'}", {"A": "pc2.ann"}, True),
    ("sel: {A|expand: '%hosts%.%names%'}", {"A": "pc3.ann"}, False),
    ("sel: {A|expand: [x, '%names%']}", {"A": "x"}, True),
    ("sel: {A|expand: x}", {"A": "x"}, True),
    ("sel: {A|expand: '100%'}", {"A": "100%"}, True),
    ("sel: {A|expand|contains: '%hosts%'}", {"A": "a pc2 b"}, True),
    ("sel: {A|contains|expand: '%hosts%'}", {"A": "a pc2 b"}, True),
    ("sel: {A|expand|startswith: '%hosts%'}", {"A": "pc2 b"}, True),
    ("sel: {A|expand|endswith: '%hosts%'}", {"A": "pc2 b"}, False),
    ("sel: {A|expand|contains|all: ['%hosts%', x]}", {"A": "pc2 x"}, True),
    ("sel: {A|expand|contains|all: ['%hosts%', x]}", {"A": "pc2"}, False),
    ("sel: {A|expand|cased: '%names%'}", {"A": "ANN"}, False),
    ("sel: {A|cased|expand: '%names%'}", {"A": "ann"}, True),
    ("sel: {A|expand|neq: '%hosts%'}", {"A": "pc3"}, True),
    ("sel: {A|expand|neq: '%hosts%'}", {"A": "pc1"}, False),
    ("sel: {A|re|expand: '^%parts%$'}", {"A": "aaa"}, True),
    ("sel: {A|re|expand: '^%parts%$'}", {"A": "7"}, True),
    ("sel: {A|re|expand: '^%parts%$'}", {"A": "b"}, False),
    ("sel: {A|re|i|expand: '^%parts%$'}", {"A": "AA"}, True),
    ("sel: {A|expand|base64: '%hosts%'}", {"A": b64("pc2")}, True),
    ("sel: {A|expand|base64: '%hosts%'}", {"A": b64("%hosts%")}, False),
    ("sel: {A|expand|base64offset|contains: 'x%hosts%'}", {"A": b64("..xpc2..")}, True),
    ("sel: {A|expand|wide|base64offset|contains: '%accents%'}", {"A": b64("l'été".encode("utf-16-le"))}, True),
    ("sel: {A|expand|wide|base64offset|contains: 'é%hosts%'}", {"A": b64("épc1".encode("utf-16-le"))}, True),
    ("sel: {A|expand|windash|contains: ' %flags%'}", {"A": "a /x"}, True),
    ("sel: {A|windash|expand|contains: ' -q %flags%'}", {"A": "a /q -x"}, True),
    ("sel: {A|windash|expand|contains: ' -q %flags%'}", {"A": "a /q /x"}, False),
    ("sel: {A|expand|base64|contains|all: ['%hosts%', foo]}", {"A": b64("pc1foo")}, True),
    ("sel: {'|expand': '%hosts%'}", {"A": "on pc1"}, True),
]


@pytest.mark.parametrize(("detection", "event", "expected"), EXPANDED)
def test_expand(tmp_path: Path, detection: str, event: Event, expected: bool) -> None:
    rule = write_rule(tmp_path, detection)
    frame = frame_of([event])
    made = compiled(rule, PLACEHOLDERS)
    assert by_masks(made, frame.events) is expected
    assert by_code(made, event) is expected
    assert (Plan.build([rule], PLACEHOLDERS).match(frame).height == 1) is expected


ILLEGAL: Final[list[tuple[str, str]]] = [
    ("{A|nosuch: x}", "nosuch"),
    ("{A|contains|re: x}", "unmodified"),
    ("{A|cased|re: x}", "unmodified"),
    ("{A|re|cased: x}", "CaseSensitive"),
    ("{A|i: x}", "IgnoreCase"),
    ("{A|expand|re: '%x%'}", "unmodified"),
    ("{A|re|base64: x}", "Base64"),
    ("{A|re|base64: abcde}", "SigmaString(['abcde'])"),
    ("{A|re: '('}", "invalid"),
    ("{A|re|contains: ''}", "empty regex"),
    ("{A|re: 'a{99999999999}'}", "repeat count too big"),
    ("{A|contains|cidr: 10.0.0.0/8}", "unmodified"),
    ("{A|cidr: nonsense}", "CIDR"),
    ("{A|cidr: 10.0.0.0/33}", "CIDR"),
    ("{A|cidr|contains: 10.0.0.0/8}", "incompatible"),
    ("{A|gt: x}", "no number"),
    ("{A|gt: nan}", "number"),
    ("{A|gt: .inf}", "number"),
    ("{A|gt: '1e999'}", "number"),
    ("{A|gt: true}", "incompatible"),
    ("{A|gt|lt: 5}", "incompatible"),
    ("{A|contains|gt: 5}", "incompatible"),
    ("{A|exists: maybe}", "incompatible"),
    ("{A|contains|exists: true}", "incompatible"),
    ("{'|exists': true}", "field"),
    ("{A|fieldref: 'B*'}", "wildcards"),
    ("{A|contains|fieldref: B}", "wildcards"),
    ("{A|expand|fieldref: '%x%'}", "placeholder"),
    ("{A|fieldref|windash: B}", "incompatible"),
    ("{A|base64: 'a*'}", "wildcards"),
    ("{A|base64offset: 'a?b'}", "wildcards"),
    ("{A|contains|base64: a}", "wildcards"),
    ("{A|base64: null}", "incompatible"),
    ("{A|wide: é}", "UTF-16"),
    ("{A|utf16be|contains: é}", "UTF-16"),
    ("{A|windash: '-a -b -c -d -e -f'}", "at most 5 dashes"),
    ("{A|contains: null}", "incompatible"),
    ("{A|contains: true}", "incompatible"),
    ("{A|hour: 24}", "from 0 to 23"),
    ("{A|minute: 60}", "from 0 to 59"),
    ("{A|day: 0}", "from 1 to 31"),
    ("{A|week: 54}", "from 1 to 53"),
    ("{A|month: 13}", "from 1 to 12"),
    ("{A|hour: 1.5}", "whole number"),
    ("{A|hour: noon}", "no number"),
    ("{A|hour|day: 1}", "one part"),
    ("{A|gt|hour: 5}", "incompatible"),
    ("{A|hour|contains: 5}", "incompatible"),
    ("{A: {B: x}}", "Unsupported type"),
    ("{A: [[x]]}", "Unsupported type"),
    ("{A: 2026-01-01}", "Unsupported type"),
    ("{}", "empty"),
    (f"{{A|hour: {10**400}}}", "whole number"),
    ('{A: "\\ud800"}', "not YAML"),
]
"""Refused when the rule is read."""


@pytest.mark.parametrize(("detection", "reason"), ILLEGAL)
def test_illegal_combinations_are_refused_with_their_reason(tmp_path: Path, detection: str, reason: str) -> None:
    path = tmp_path / "rule.yml"
    path.write_text(
        f"title: T\nlogsource: {{product: windows}}\ndetection:\n  sel: {detection}\n  condition: sel\n", "utf-8"
    )
    pack = load_rules([path])
    assert not pack.rules
    (refusal,) = pack.refused
    assert reason in refusal.reason, refusal
    assert refusal.line in {3, 4}


UNCOMPILABLE: Final[list[tuple[str, dict[str, list[str]], str]]] = [
    ("sel: []", {}, "empty list"),
    ("sel: {A|expand: '%x%'}", {}, "%x% has no values"),
    ("sel: {A|expand: '%x%'}", {"x": []}, "%x% has no values"),
    ("sel: {A|expand|base64: '%x%'}", {}, "%x% has no values"),
    ("sel: {A|expand|base64: '%x%'}", {"x": ["a*"]}, "wildcards"),
    ("sel: {A|re|expand: '%x%'}", {"x": ["("]}, "invalid"),
    ("sel: {A|re|expand: 'a{%x%}'}", {"x": ["99999999999"]}, "too large"),
    ("sel: {A|expand: '%x%%y%'}", {"x": ["a"] * 1000, "y": ["b"] * 1000}, "more than 100000 values"),
    ("sel: {'|cidr': 10.0.0.0/8}", {}, "needs a field"),
    ("sel: {'|gt': 5}", {}, "needs a field"),
    ("sel: {'|hour': 5}", {}, "needs a field"),
    ("sel: {'|fieldref': B}", {}, "needs a field"),
    ("sel: ['']", {}, "every event"),
    ("sel: {'|re': '(a{1000}){1000}'}", {}, "size limit"),
    ("sel: {A|re: '(a{1000}){1000}'}", {}, "size limit"),
    ("sel: {A|re: '(x+x+)+y(?=z)'}", {}, "exponential"),
]


@pytest.mark.parametrize(("detection", "placeholders", "reason"), UNCOMPILABLE)
def test_what_cannot_be_compiled_is_refused_with_its_reason(
    tmp_path: Path, detection: str, placeholders: dict[str, list[str]], reason: str
) -> None:
    refusal = compile_rule(write_rule(tmp_path, detection), placeholders)
    assert isinstance(refusal, Refusal)
    assert reason in refusal.reason
    assert refusal.line == 6
