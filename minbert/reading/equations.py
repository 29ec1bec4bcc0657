"""The equations of docstrings, which are plain text in the papers' symbols, as TeX and then as MathML.

    softmax(QKᵀ/√D + mask)·V        →        \\mathrm{softmax}(QK^{T}/\\sqrt{D}+\\mathrm{mask})\\cdot V

The library latex2mathml makes MathML of TeX; browsers show it without any script.
"""

import re
import unicodedata

SYMBOLS = {
    "·": r"\cdot ", "⊙": r"\odot ", "←": r"\leftarrow ", "→": r"\to ", "Σ": r"\sum ", "‖": r"\Vert ", "≤": r"\le ",
    "≥": r"\ge ", "≠": r"\ne ", "∞": r"\infty ", "∇": r"\nabla ", "∈": r"\in ", "×": r"\times ", "…": r"\ldots ",
    "−": "-", "Π": r"\Pi ", "Φ": r"\Phi ", "∂": r"\partial ", "≈": r"\approx ", "&": r"\& ", "%": r"\% ", "#": r"\# ",
    "½": r"\tfrac{1}{2}", "{": r"\{", "}": r"\}",
}  # fmt: skip
NAMES = ("alpha", "beta", "gamma", "delta", "varepsilon", "eta", "theta", "lambda", "mu", "sigma", "varphi", "tau",
         "pi", "rho", "kappa", "omega")  # fmt: skip
GREEK = dict(zip("αβγδεηθλμσφτπρκω", NAMES, strict=True))
RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻ᵀᵗˣⁿⁱʲ", "0123456789-Ttxnij", strict=True))
LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉ₜᵢⱼₖₙ", "0123456789tijkn", strict=True))
PRODUCTS = ("QK",)  # what two letters mean a product; others are a name: LN, KL
MARKS = {"\u0303": "tilde", "\u0302": "hat", "\u0304": "bar"}
TOKEN = re.compile(r"\s+|[A-Za-z]+|\d+(?:\.\d+)?|.", re.S)


def tex(text: str) -> str:
    """An equation in plain text → TeX."""
    tokens = TOKEN.findall(unicodedata.normalize("NFD", text))
    parts: list[str] = []
    i = 0
    while i < len(tokens):
        part, i = _atom(tokens, i)
        parts.append(part)
    return re.sub(r"(\\mathrm\{\w+\}) (?=\\mathrm|[\wℓ])", r"\1\\ ", "".join(parts)).strip()


def _atom(tokens: list[str], i: int) -> tuple[str, int]:
    """The TeX of the token at `i` with what belongs to it, and the place of the next one."""
    token = tokens[i]
    if token == "√":
        inside, i = _group(tokens, i + 1)
        if tokens[i : i + 1] == ["_"]:
            index, i = _atom(tokens, i)
            inside += index
        return rf"\sqrt{{{inside}}}", i
    if token in "_^" and i + 1 < len(tokens):
        inside, i = _group(tokens, i + 1)
        return f"{token}{{{inside}}}", i
    for letters, sign in ((RAISED, "^"), (LOWERED, "_")):
        if token in letters:
            end = i
            while end < len(tokens) and tokens[end] in letters:
                end += 1
            return f"{sign}{{{''.join(letters[t] for t in tokens[i:end])}}}", end
    mark = MARKS.get(tokens[i + 1]) if i + 1 < len(tokens) else None
    if mark:
        return rf"\{mark}{{{_letter(token)}}}", i + 2
    return _letter(token), i + 1


def _group(tokens: list[str], i: int) -> tuple[str, int]:
    """What a root, an index or an exponent covers: a parenthesis, a bracket with words inside, or one token."""
    if i < len(tokens) and tokens[i] in "([{":
        depth, end = 0, i
        for end in range(i, len(tokens)):
            depth += (tokens[end] in "([{") - (tokens[end] in ")]}")
            if not depth:
                break
        inside = "".join(tokens[i + 1 : end])
        return (rf"[{tex(inside)}]" if tokens[i] == "[" else tex(inside)), end + 1
    return _atom(tokens, i) if i < len(tokens) else ("", i)


def _letter(token: str) -> str:
    if token.isspace():
        return r"\; " if len(token) > 1 else " "
    if token in SYMBOLS:
        return SYMBOLS[token]
    if token in GREEK:
        return rf"\{GREEK[token]} "
    if token.isascii() and token.isalpha() and len(token) > 1 and token not in PRODUCTS:
        return rf"\mathrm{{{token}}}"
    return token


def mathml(text: str) -> str:
    """An equation in plain text → a <math> element that keeps the text for those who do not see it."""
    from latex2mathml.converter import convert

    plain = text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return convert(tex(text), display="block").replace("<math ", f'<math alttext="{plain}" ', 1)


def is_equation(line: str) -> bool:
    """Whether a line that is set apart is an equation, and not a diagram, a table or a command."""
    return bool(re.search(r"[=←≤]", line)) and not re.search(r"[─│┌└]|--\w|python |`", line)
