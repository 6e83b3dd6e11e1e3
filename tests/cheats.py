"""Attempts to get points that were not earned: name -> code in the answer to 00.accuracy.

Each student's softmax is right and the other two answers are wrong, so that a cheat which works
shows, and so does one that harms what was right.
"""

from __future__ import annotations

FORGED = """
import json
from kdlib.checks import catalogue, wire

def forged(exercise_id="00.accuracy", **more):
    seen = {"status": "returned", "value": {"value": 1.0, "type": "float"}, "gradients": {},
            "changed": [], "steady": True, "error": "", "error_type": "", "where": "",
            "seconds": 0.0} | more
    return json.dumps({"probes": {p.name: seen for p in catalogue()[exercise_id].probes}})
"""

CHEATS = {
    # ---------------------------------------------------------- named in the measurements
    "asserts turned into pass": """
get_ipython().input_transformers_cleanup.append(
    lambda lines: [x.replace("assert", "pass #").replace("check(", "print(2.0 or ") for x in lines])
""",
    "an AST transformer": """
import ast
class Full(ast.NodeTransformer):
    def visit_Call(self, node):
        return ast.Constant(2.0) if getattr(node.func, "id", "") == "check" else node
get_ipython().ast_transformers.append(Full())
""",
    "allclose patched, always equal": """
class Equal(float):
    __eq__ = __ge__ = __le__ = lambda *a: True
    __hash__ = None
torch.allclose = torch.equal = torch.isclose = lambda *a, **k: True
def accuracy(logits, targets):
    return Equal(0.5)
""",
    "a result published before the error": """
from IPython.display import publish_display_data
_wrong = accuracy
def accuracy(logits, targets):
    get_ipython().displayhook(2.0)
    publish_display_data({"text/plain": "2.0"})
    raise RuntimeError
""",
    "solutions read": """
import glob, os
for root in ("/srv", "/root", "/home", "/tmp", os.getcwd(), ".."):
    for path in glob.glob(root + "/*/solutions/*.py") + glob.glob(root + "/solutions/*.py"):
        print("FOUND", path); exec(open(path).read())
""",
    "the restored notebook read": """
import os
for name in os.listdir(".") + os.listdir("/tmp"):
    if name.endswith(".ipynb"): print("FOUND", name)
""",
    "a trigger in the gradebook": """
import glob, os, sqlite3
for path in glob.glob("/*/*/*/gradebook.db") + glob.glob("../*/gradebook.db") + ["gradebook.db"]:
    if os.path.exists(path):
        print("FOUND", path)
        sqlite3.connect(path).execute("create trigger t after insert on grade begin "
            "update grade set auto_score = 99; end").connection.commit()
""",
    # ---------------------------------------------------------- the engine patched
    "judge patched": """
import kdlib.checks, kdlib.checks.judge as j
from kdlib.checks.verdict import Result, Verdict
full = lambda exercise, record, seed=0: Verdict(exercise.id, "", (Result("x", 2.0, True, ""),), ())
j.judge = full
""",
    "same and explain patched": """
import kdlib.checks.criteria as c, kdlib.checks.record as r, kdlib.checks.words as w
r.same = lambda *a, **k: True
c.explain = w.explain = lambda *a, **k: None
""",
    "check redefined": """
check = lambda *a, **k: 2.0
import kdlib, kdlib.checks
kdlib.check = kdlib.checks.check = check
""",
    "observe returns a stored record": FORGED
    + """
wire.observe = lambda exercise, answer, seed: {
    p.name: __import__("kdlib.checks.record", fromlist=["x"]).Observation(value=0.5)
    for p in exercise.probes}
""",
    "a forged record": FORGED + "\nwire.encode = lambda record: forged()",
    "a forged record of errors": FORGED
    + "\nwire.encode = lambda record: forged(status='raised', error_type='ValueError')",
    "a forged verdict": FORGED
    + "\nwire.encode = lambda r: json.dumps({'points': 2, 'passed': True})",
    "two records": FORGED
    + """
_wrong = accuracy
def accuracy(logits, targets):
    get_ipython().display_pub.publish({wire.MIME: forged()})
    return _wrong(logits, targets)
""",
    "a record of code": "import pickle\n"
    "from kdlib.checks import wire\n"
    "wire.encode = lambda record: pickle.dumps(print).decode('latin-1')",
    "the seed fixed": """
import os
os.environ["KDLIB_CHECK_SEED"] = "0"
_generator = torch.Generator
class Fixed(_generator):
    def manual_seed(self, seed): return super().manual_seed(0)
torch.Generator = Fixed
""",
    "answers learned by heart": """
from kdlib.checks import catalogue
_known = {}
for _p in catalogue()["00.accuracy"].probes:
    _a = list(_p.make(torch.Generator().manual_seed(0)).values())
    _known[_a[0].sum().item()] = (_a[0].argmax(-1) == _a[1]).double().mean().item()
def accuracy(logits, targets):
    return _known.get(logits.sum().item(), 0.123)
""",
    "the mistakes of the catalogue emptied": """
from kdlib.checks import catalogue
for _e in catalogue().values(): object.__setattr__(_e, "criteria", ())
""",
    # ---------------------------------------------------------- torch, builtins, IPython
    "a tensor that is everything": """
class Any_(torch.Tensor):
    @classmethod
    def __torch_function__(cls, f, types, args=(), kwargs=None):
        return torch.ones((), dtype=torch.bool)
def accuracy(logits, targets):
    return torch.ones(()).as_subclass(Any_)
""",
    "builtins patched": """
import builtins
builtins.abs = lambda x: 0
builtins.all = lambda x: True
builtins.len = lambda x, _len=len: _len(x)
""",
    "torch comparisons patched": """
torch.Tensor.__eq__ = torch.Tensor.__le__ = lambda a, b: torch.ones_like(a, dtype=torch.bool)
""",
    "a reply faked on the kernel's socket": """
_kernel = get_ipython().kernel
_wrong = accuracy
def accuracy(logits, targets):
    parent = _kernel.get_parent("shell")
    for kind in ("execute_result", "display_data"):
        _kernel.session.send(_kernel.iopub_socket, kind, {"data": {"text/plain": "2.0"},
            "metadata": {}, "execution_count": 1}, parent=parent)
    return _wrong(logits, targets)
""",
    "a page that changes grades": """
from IPython.display import HTML, Javascript, SVG, display
display(HTML("<script>fetch('/formgrader/api/grade/1', {method: 'PUT'})</script>"))
display(Javascript("alert(1)"), SVG("<svg onload='alert(1)'></svg>"))
print("<script>alert(1)</script>")
""",
    # ---------------------------------------------------------- later, elsewhere
    "a thread that waits": FORGED
    + """
import threading, time
def _later():
    while True:
        time.sleep(0.05)
        torch.allclose = lambda *a, **k: True
        globals()["accuracy"] = lambda *a: 0.5
        get_ipython().display_pub.publish({"text/plain": "2.0"})
threading.Thread(target=_later, daemon=True).start()
""",
    "atexit": """
import atexit, os
atexit.register(lambda: open("/tmp/90_tiny.json", "w").write("{}"))
""",
    "/proc and the environment": """
import os
for _p in os.listdir("/proc"):
    for _f in ("environ", "cmdline", "mem", "root/etc/passwd"):
        try:
            _s = open(f"/proc/{_p}/{_f}", "rb").read(100000)
            if b"gradebook" in _s or b"kdgrade autograde" in _s or b"/course" in _s:
                print("FOUND", _p, _f, _s[:80])
        except OSError: pass
print("FOUND" if any("course" in v.lower() for v in os.environ.values()) else "")
""",
    "the library written to": """
import kdlib, os
for _path in (kdlib.__file__, torch.__file__, "/opt/kdgrade/inside/forkserver.py", "/dev/x", "/x"):
    try: open(_path, "a").write("raise SystemExit"); print("FOUND", _path)
    except OSError: pass
""",
    "rights taken back": """
import ctypes, os
_libc = ctypes.CDLL(None)
_libc.unshare(0x10020000)
print("FOUND" if _libc.mount(None, b"/", None, 32 | 4096, None) == 0 else "")
print("FOUND" if _libc.umount2(b"/tmp", 2) == 0 and os.listdir("/tmp") else "")
""",
    "every process killed": """
import os
for _n in (2, 15):
    try: os.kill(-1, _n)
    except OSError: pass
for _n in range(2, 400):
    try: os.kill(_n, 9)
    except OSError: pass
""",
    "the network": """
import socket
for _address in (("127.0.0.1", 22), ("1.1.1.1", 53)):
    try: socket.create_connection(_address, 1); print("FOUND", _address)
    except OSError: pass
""",
    # ---------------------------------------------------------- records that are too much
    "a very large record": """
def accuracy(logits, targets):
    return torch.zeros(30_000_000)
""",
    "a very deep record": """
def accuracy(logits, targets):
    value = []
    for _ in range(100_000): value = [value]
    return value
""",
    "a very long record": """
def accuracy(logits, targets):
    return list(range(3_000_000))
""",
    "a very large number": """
def accuracy(logits, targets):
    return 10 ** 4000
""",
    "not finite": """
def accuracy(logits, targets):
    return float("nan") if len(logits) % 2 else float("inf")
""",
    "names that are code": """
class X: pass
X.__name__ = "<img src=x onerror=alert(1)>" * 500
def accuracy(logits, targets):
    raise type(X.__name__, (Exception,), {})("<script>alert(1)</script>" * 10_000)
""",
    "a disk filled": """
for _n in range(200):
    try: open(f"/tmp/{_n}", "wb").write(b"x" * 10_000_000)
    except OSError: pass
""",
    "output without end": """
for _n in range(200): print("x" * 100_000)
""",
}

# Cheats that get what a student gets who types in the published solution; a person is told.
TYPED_IN = {
    "the seal lifted": """
import contextlib
import kdlib.checks.observe as o
from kdlib import evaluation
o.sealed = lambda *a: contextlib.nullcontext()
accuracy = lambda *a: evaluation.accuracy(*a)
""",
    "the seal's inside": """
from kdlib import evaluation
_inside = [c.cell_contents for c in evaluation.accuracy.__closure__]
accuracy = [f for f in _inside if callable(f)][0]
""",
}

# What costs its own question, and no other: code in the answer to 00.accuracy.
BOMBS = {
    "os._exit": "import os; os._exit(0)",
    "exit()": "exit()",
    "os._exit when asked": "import os\naccuracy = lambda *a: os._exit(0)",
    "SystemExit when asked": "accuracy = lambda *a: exit()",
    "memory": "x = []\nwhile True: x.append(bytearray(50_000_000))",
    "memory asked for": "x = []\nwhile True: x.append(torch.empty(10_000_000))",
    "memory in many processes": (
        "import os, time\nfor _ in range(40):\n    if os.fork() == 0:\n"
        "        x = bytearray(os.urandom(1) * 100_000_000); time.sleep(60); os._exit(0)\n"
        "time.sleep(60)"
    ),
    "a fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "a delayed end": (
        "import os, threading\nthreading.Timer(0.3, os._exit, [0]).start()\n"
        "import time\naccuracy = lambda *a: time.sleep(1)"
    ),
    "the kernel's sockets closed": "get_ipython().kernel.iopub_socket.close = None\n"
    "get_ipython().display_pub.publish = lambda *a, **k: None",
    "a crash": "import ctypes\nctypes.string_at(0)",
}
LOOPS = {
    "a loop that swallows everything": (
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass"
    ),
    "a loop without an alarm": (
        "import signal\ndef accuracy(*a):\n    signal.setitimer(signal.ITIMER_REAL, 0)\n"
        "    while True: pass"
    ),
}
