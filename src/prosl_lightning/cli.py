"""`prosl VERB`: one table of verbs; a verb's module is imported only when it is called."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

from prosl_lightning.errors import ProSLError, UsageError
from prosl_lightning.version import __version__

# verb -> (module with `main(arguments)`, one line of help)
VERBS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "train a small encoder on a synthetic set and show what it learnt (minutes, no data needed)"),
    "prepare": ("prepare", "raw files or arrays -> one archive; joins archives"),
    "inspect": ("inspect", "what an archive or a folder of raw files holds: counts, faults, a picture sheet"),
    "fit": ("fit", "train an encoder: prosl fit --config ntu60.yaml --data.root DIR"),
    "knn": ("knn", "nearest-neighbour accuracy of a trained encoder"),
    "linear": ("linear", "linear evaluation of a trained encoder"),
    "semi": ("semi", "fine-tune with a labelled fraction of the training set"),
    "transfer": ("transfer", "evaluate on another data set than the encoder was trained on"),
    "embed": ("embed", "features of your own files or of an archive, as npz"),
    "predict": ("predict", "classes of your own files, by a trained classifier"),
    "table": ("table", "your results beside the paper's tables"),
    "sweep": ("sweep", "train and judge the variants of one of the paper's ablations"),
    "plot": ("plot", "figures of a trained encoder, its codebook, its training, or of skeletons"),
    "configs": ("configs", "list the packaged configurations, or print one"),
}


def _help() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {text}" for verb, (_, text) in VERBS.items())
    return (
        "usage: prosl VERB [options]\n\nProgressive semantic learning of skeleton representations.\n\n"
        f"{verbs}\n\nprosl VERB --help tells the options of a verb; prosl --version the version."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        arguments: The command line without the program's name; None takes the process's.

    Returns:
        Exit code: 0 done, 1 an error in data or files, 2 an error in the command line, 130 interrupted, 141 nobody
        reads the output any more (`prosl ... | head`).

    Raises:
        SystemExit: After a verb's `--help` (0), and where the verb's parser found the error (2).
    """
    try:
        try:
            return _run(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
        return 141


def _run(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb in ("--version", "version"):
        print(f"prosl-lightning {__version__}")
        return 0
    if verb not in VERBS:
        close = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"verbs are {', '.join(VERBS)}"
        print(f"prosl: error: unknown verb '{verb}'; {hint}", file=sys.stderr)
        return 2
    try:
        return importlib.import_module(f"prosl_lightning.commands.{VERBS[verb][0]}").main(rest) or 0
    except ProSLError as error:
        if os.environ.get("PROSL_DEBUG"):
            raise
        print(f"prosl {verb}: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print(f"prosl {verb}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
