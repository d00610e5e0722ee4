"""Words that nearly every text has: a search for them reads the longest lists and tells nothing."""

from __future__ import annotations

_ENGLISH = """
a about all also an and any are as at be been but by can could did do does for from had has have he her
here his how i if in into is it its just may me more my no not of on one or our out she should so some
such than that the their them then there these they this those to up us was we were what when where
which who whom why will with would you your
"""
_GERMAN = """
der die das den dem des ein eine einer einem einen und oder ist sind war wie was wer wo wann warum zu im
mit von auf für nicht ich sie er es wir man kann
"""
_ROMANCE = """
le la les l un une des et ou est que qui quoi où je tu il elle nous vous au aux el los las y de del en
lo di e che per con
"""
COMMON_WORDS = frozenset(f"{_ENGLISH} {_GERMAN} {_ROMANCE}".split())
