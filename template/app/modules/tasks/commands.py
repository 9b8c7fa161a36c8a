"""The worker: a process that runs jobs and serves nothing."""

import asyncio
import signal
from collections.abc import Callable
from pkgutil import resolve_name

import typer
from fastapi import FastAPI

commands = typer.Typer(name="worker")


@commands.callback(invoke_without_command=True)
def worker(context: typer.Context) -> None:
    """Run jobs until SIGTERM or Ctrl-C; those that run have some seconds, and then go back to the queue."""
    # The composition root says where the application is: what is below may not import it.
    create_app: Callable[[], FastAPI] = resolve_name(context.obj)
    app = create_app()
    app.state.works = True

    async def work() -> None:
        stop = asyncio.Event()
        for name in (signal.SIGTERM, signal.SIGINT):
            try:
                asyncio.get_running_loop().add_signal_handler(name, stop.set)
            except NotImplementedError:  # Windows, where Ctrl-C cancels what runs.
                signal.signal(name, lambda *_: stop.set())
        async with app.router.lifespan_context(app):
            await stop.wait()

    asyncio.run(work())
