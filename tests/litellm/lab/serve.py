"""Runs LiteLLM's proxy in its virtual environment: `python -m lab.serve SOCKET`.

The socket is a descriptor that the starter has bound: another program cannot take the port in the
seconds that LiteLLM needs. The configuration is the file that CONFIG_FILE_PATH names.
"""

import os
import socket
import sys
import threading
import time

import uvicorn
from litellm.caching.in_memory_cache import InMemoryCache


def main():
    parent = os.getppid()
    threading.Thread(target=end_with, args=[parent], daemon=True).start()
    # Without Redis LiteLLM keeps 200 counters and forgets older ones; the checks need more.
    InMemoryCache.max_size_in_memory = property(lambda cache: 1_000_000, lambda cache, size: None)
    config = uvicorn.Config("litellm.proxy.proxy_server:app", log_level="error", loop="uvloop")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])


def end_with(parent):
    """Ends LiteLLM when the process that started it is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)


if __name__ == "__main__":
    main()
