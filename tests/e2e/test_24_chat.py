# SPDX-License-Identifier: Apache-2.0
"""`yolk run` as a conversation: through a pipe, and in a terminal with a person who types Ctrl-C."""
import os
import pty
import re
import select
import subprocess
import time

from cluster import YOLK, model_path, run_yolk


def piped(lines, *options):
    result = run_yolk("run", model_path(), "--chat", "--max-tokens", "12", *options, stdin="\n".join(lines) + "\n")
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_conversation_through_a_pipe():
    """Each line is a turn; what was said before counts, until it is forgotten."""
    alone = run_yolk("run", model_path(), "What is my name?", "--max-tokens", "12").stdout
    apart = piped(["My name is Ada.", "/reset", "What is my name?", "/exit", "never answered"])
    assert apart.endswith(alone) and len(apart) > len(alone)
    together = piped(["My name is Ada.", "What is my name?"])
    assert together != apart and together.startswith(apart[:-len(alone)])


def test_a_conversation_that_does_not_fit_is_said():
    result = run_yolk("run", model_path(), "--chat", stdin="word " * 9000 + "\n")
    assert result.returncode != 0 and "/reset" in result.stderr


def test_chat_is_not_raw():
    result = run_yolk("run", model_path(), "--chat", "--raw", stdin="")
    assert result.returncode != 0 and "--raw" in result.stderr


class Terminal:
    def __init__(self, *args, model=None):
        self.master, slave = pty.openpty()
        self.text = ""
        self.process = subprocess.Popen([str(YOLK), "run", str(model or model_path()), *args], stdin=slave, stdout=slave,
                                        stderr=slave, start_new_session=True,
                                        preexec_fn=lambda: __import__("fcntl").ioctl(0, 0x540E, 0))
        os.close(slave)

    def wait(self, pattern, timeout=60):
        """Reads until the pattern is in what has not been looked at; returns that."""
        end = time.monotonic() + timeout
        while not re.search(pattern, self.text):
            assert time.monotonic() < end, self.text
            if select.select([self.master], [], [], 0.2)[0]:
                self.text += os.read(self.master, 65536).decode(errors="replace")
        seen, self.text = self.text, ""
        return seen

    def type(self, text):
        os.write(self.master, text.encode())

    def end(self):
        self.process.wait(timeout=30)
        os.close(self.master)
        return self.process.returncode


def test_a_conversation_in_a_terminal():
    """Ctrl-C stops an answer and not the program; the conversation goes on, and /exit ends it."""
    terminal = Terminal("--max-tokens", "4000", "--ignore-eos")
    terminal.wait(r">>> ")
    terminal.type("Tell me a very long story.\n")
    terminal.wait(r"story\.\r\n[^>]{30}")
    terminal.type("\x03")
    terminal.wait(r">>> ", timeout=20)
    terminal.type("\x03")
    assert "/exit" in terminal.wait(r">>> ", timeout=20)
    terminal.type("/exit\n")
    assert terminal.end() == 0
