"""`GET /problems/{slug}`: what stands behind the `type` of a problem, for people and for programs."""

from html import escape
from inspect import cleandoc

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from app.platform.errors import DomainError, NotFound
from app.platform.http.problems import Kind, Problem, problem_type, status_of

VARY = {"Vary": "Accept"}  # how long it may be kept is said with the other public documents
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<h1>{title}</h1><p>{explanation}</p><p>HTTP status {status}, type <code>{type}</code></p></html>
"""


def problems_router() -> APIRouter:
    router = APIRouter(prefix="/problems", include_in_schema=False)

    @router.get("/{slug}")
    async def explain(slug: str, request: Request) -> Response:
        kind = find_kind(slug)
        about = {
            "type": problem_type(slug),
            "title": kind.title,
            "status": status_of(kind),
            "explanation": cleandoc(kind.__doc__ or ""),
        }
        if "text/html" not in request.headers.get("accept", ""):
            return JSONResponse(about, headers=VARY)
        return HTMLResponse(PAGE.format_map({name: escape(str(value)) for name, value in about.items()}), headers=VARY)

    return router


def find_kind(slug: str) -> Kind:
    """Of all problem types that the imported code declares. Raises `NotFound`."""
    waiting: list[Kind] = [Problem, DomainError]
    while waiting:
        kind = waiting.pop()
        if kind.slug == slug:
            return kind
        waiting.extend(kind.__subclasses__())
    raise NotFound("There is no problem type of that name.")
