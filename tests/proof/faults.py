"""Faults that are planted in a copy of the template, one at a time, and how the proof has to tell each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Plant = Callable[[Path], None]


@dataclass(frozen=True)
class Fault:
    """A fault: what plants it, and the check, the file, the words and the line by which it is told."""

    plants: tuple[Plant, ...]
    check: str
    path: str
    words: str
    line: str = ""


def append(path: str, text: str) -> Plant:
    """Return what adds a text to the end of a file, which is made where it is not there."""

    def plant(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        with (root / path).open("a", encoding="utf-8") as file:
            file.write(text)

    return plant


def replace(path: str, old: str, new: str) -> Plant:
    """Return what replaces a text, which has to be there."""

    def plant(root: Path) -> None:
        text = (root / path).read_text("utf-8")
        assert old in text, f"{path} does not hold {old}"
        (root / path).write_text(text.replace(old, new), "utf-8")

    return plant


def fault(check: str, path: str, words: str, *plants: Plant, line: str = "") -> Fault:
    """Return a fault. `line` is a part of the line that has to be named."""
    return Fault(plants, check, path, words, line)


def when(module: str) -> str:
    """Return the line that begins what is rendered with a module."""
    return f"{{% if modules.{module}.selected %}}\n"


APP = "template/app"
SEAM = f"{APP}/installed.py.jinja"
COMPOSE = "template/compose.yaml.jinja"
GITHUB = "template/.github/workflows/ci.yml.jinja"
GITLAB = "template/.gitlab-ci.yml.jinja"
MANIFEST = "extensions/modules.yml"
PROJECT = "template/pyproject.toml.jinja"

FAULTS = {
    "an import of an unselected module": fault(
        "import",
        "app/modules/users/service.py",
        "app.modules.projects.models is not rendered",
        append(f"{APP}/modules/users/service.py", "\nfrom app.modules.projects.models import Project\n"),
        line="from app.modules.projects.models import Project",
    ),
    "an import inside a function": fault(
        "import",
        "app/kit/ids.py",
        "app.ports.redis.module is not rendered",
        append(
            f"{APP}/kit/ids.py",
            "\n\ndef late() -> None:\n    from app.ports.redis import module\n",
        ),
        line="    from app.ports.redis import module",
    ),
    "an import of a name that is not there": fault(
        "import",
        "app/kit/ids.py",
        "app.kit.clock has no later",
        append(f"{APP}/kit/ids.py", "\nfrom app.kit.clock import later\n"),
        line="import later",
    ),
    "an import of a name that is there in some variants": fault(
        "import",
        "app/cli.py",
        "app.installed has no EXTRA",
        replace(SEAM, "DISTRIBUTION =", "{% if modules.redis.selected %}\nEXTRA = 1\n{% endif %}\nDISTRIBUTION ="),
        append(f"{APP}/cli.py", "\nfrom app.installed import EXTRA\n"),
        line="import EXTRA",
    ),
    "an import of a module that is not there": fault(
        "import",
        "app/kit/ids.py",
        "there is no module app.kit.nothing",
        append(f"{APP}/kit/ids.py", "\nimport app.kit.nothing\n"),
        line="import app.kit.nothing",
    ),
    "an import in a seam without its condition": fault(
        "import",
        "app/installed.py",
        "app.ports.redis.module is not rendered",
        replace(
            SEAM,
            "{% if modules.redis.selected %}\nfrom app.ports.redis.module import redis\n{% endif %}\n",
            "from app.ports.redis.module import redis\n",
        ),
        line="from app.ports.redis.module import redis",
    ),
    "an import in a seam under another module's condition": fault(
        "import",
        "app/ports/db/adapters.py",
        "app.ports.db.postgresql is not rendered",
        replace(
            f"{APP}/ports/db/adapters.py.jinja",
            "{% if modules.postgresql.selected %}\nfrom",
            "{% if modules.resilience.selected %}\nfrom",
        ),
        line="from app.ports.db.postgresql import open_postgresql",
    ),
    "a need that the manifest lacks": fault(
        "import",
        "app/modules/projects/models.py",
        "app.ports.db.soft_delete is not rendered",
        replace(MANIFEST, "needs: [users, lists, soft_delete]", "needs: [users, lists]"),
        line="import SoftDeletedRecord",
    ),
    "a file that another module owns": fault(
        "import",
        "app/modules/users/endpoints.py",
        "app.modules.users.schemas is not rendered",
        replace(
            MANIFEST, "owns: [/app/modules/projects,", "owns: [/app/modules/users/schemas.py, /app/modules/projects,"
        ),
        line="from app.modules.users.schemas import",
    ),
    "a test of another module": fault(
        "import",
        "tests/modules/users/test_users.py",
        "app.modules.projects.models is not rendered",
        append("template/tests/modules/users/test_users.py", "\nfrom app.modules.projects.models import Project\n"),
        line="import Project",
    ),
    "a dependency that is not declared": fault(
        "dependency",
        "app/kit/ids.py",
        "numpy is imported and not declared",
        append(f"{APP}/kit/ids.py", "\nimport numpy\n"),
        line="import numpy",
    ),
    "a dependency for development that the service imports": fault(
        "dependency",
        "app/kit/ids.py",
        "hypothesis is imported and not declared",
        append(f"{APP}/kit/ids.py", "\nimport hypothesis\n"),
        line="import hypothesis",
    ),
    "a dependency under too narrow a condition": fault(
        "dependency",
        "app/ports/db/postgresql.py",
        "asyncpg is imported and not declared",
        replace(
            PROJECT,
            '{% if modules.postgresql.selected %}\n    "asyncpg',
            '{% if modules.redis.selected %}\n    "asyncpg',
        ),
        line="import asyncpg",
    ),
    "a dependency under too wide a condition": fault(
        "dependency",
        "pyproject.toml",
        "redis is declared and not used",
        replace(PROJECT, "{% if modules.redis.selected and not", "{% if modules.resilience.selected and not"),
        line='"redis>=',
    ),
    "a dependency that nobody uses": fault(
        "dependency",
        "pyproject.toml",
        "aardvark is declared and not used",
        replace(PROJECT, '    "alembic>=', '    "aardvark>=1,<2",\n    "alembic>='),
        line="aardvark",
    ),
    "a setting that no example names": fault(
        "setting",
        "app/ports/redis/module.py",
        "REDIS_SIZE is not in .env.example",
        replace(
            f"{APP}/ports/redis/module.py",
            "    redis_url: SecretURL",
            "    redis_size: int = 4\n    redis_url: SecretURL",
        ),
        line="redis_size: int",
    ),
    "a setting that nobody reads": fault(
        "setting",
        "app/ports/redis/module.py",
        "nobody reads REDIS_SIZE",
        replace(
            f"{APP}/ports/redis/module.py",
            "    redis_url: SecretURL",
            "    redis_size: int = 4\n    redis_url: SecretURL",
        ),
        append("template/.env.example.jinja", "{% if modules.redis.selected %}\nREDIS_SIZE=4\n{% endif %}\n"),
        line="redis_size: int",
    ),
    "a setting that was never declared": fault(
        "setting",
        "app/kit/ids.py",
        "SHARD is read past the settings",
        append(f"{APP}/kit/ids.py", '\nimport os\n\nSHARD = os.environ.get("SHARD")\n'),
        line='os.environ.get("SHARD")',
    ),
    "an example under the wrong condition": fault(
        "setting",
        ".env.example",
        "REDIS_URL is no setting",
        replace("template/.env.example.jinja", "{% if modules.redis.selected %}", "{% if modules.docker.selected %}"),
        line="REDIS_URL=",
    ),
    "a variable in compose that is no setting": fault(
        "setting",
        "compose.yaml",
        "HOTS is no setting",
        replace(COMPOSE, "    HOST: 0.0.0.0\n", "    HOST: 0.0.0.0\n    HOTS: 0.0.0.0\n"),
        line="HOTS:",
    ),
    "a variable in the image that is no setting": fault(
        "setting",
        "Dockerfile",
        "HOTS is no setting",
        replace("template/Dockerfile.jinja", "    HOST=0.0.0.0", "    HOTS=0.0.0.0"),
        line="HOTS=",
    ),
    "a variable in a pipeline that is no setting": fault(
        "setting",
        ".gitlab-ci.yml",
        "DEBUGG is no setting",
        replace(GITLAB, "  UV_LINK_MODE: copy\n", '  UV_LINK_MODE: copy\n  DEBUGG: "true"\n'),
        line="DEBUGG:",
    ),
    "settings that no module contributes": fault(
        "module",
        "app/ports/redis/module.py",
        "no module contributes RedisSettings",
        replace(f"{APP}/ports/redis/module.py", "    settings=(RedisSettings,),\n", ""),
        line="class RedisSettings",
    ),
    "a table that Alembic does not see": fault(
        "module",
        "app/modules/projects/models.py",
        "no module contributes Project",
        replace(f"{APP}/modules/projects/module.py", ", tables=[Project]", ""),
        line="class Project(",
    ),
    "a module that is not installed": fault(
        "module",
        "app/ports/redis/module.py",
        "redis is not among the installed modules",
        replace(SEAM, "{% if modules.redis.selected %}\n    redis,\n{% endif %}\n", ""),
        line="redis = Module(",
    ),
    "a foreign key to a table that may be away": fault(
        "table",
        "app/modules/users/models.py",
        "there is no table projects",
        append(f"{APP}/modules/users/models.py.jinja", '    project_id: str = Field(foreign_key="projects.id")\n'),
        line='foreign_key="projects.id"',
    ),
    "two tables with one name": fault(
        "table",
        "app/modules/users/models.py",
        "projects is a table of app/modules/projects/models.py as well",
        replace(f"{APP}/modules/users/models.py.jinja", '__tablename__ = "users"', '__tablename__ = "projects"'),
        line="class User(",
    ),
    "a route that nobody promised": fault(
        "route",
        "app/modules/projects/endpoints.py",
        "GET /api/v1/app/projects/all is served and not promised",
        append(
            f"{APP}/modules/projects/endpoints.py",
            '\n\n@router.get("/all")\nasync def list_all() -> None:\n    """List all projects."""\n',
        ),
        line='@router.get("/all")',
    ),
    "a promised route that is not served": fault(
        "route",
        "contract.yml",
        "PATCH /api/v1/app/users/me is promised and not served",
        replace(f"{APP}/modules/users/endpoints.py", '@router.patch("/me"', '@router.put("/me"'),
        line="PATCH A/users/me",
    ),
    "a route on the wrong tier": fault(
        "route",
        "app/modules/projects/endpoints.py",
        "GET /api/v1/public/projects is served and not promised",
        replace(f"{APP}/modules/projects/module.py", "Tier.APP", "Tier.PUBLIC"),
        line='@router.get(""',
    ),
    "a router that nobody mounts": fault(
        "route",
        "app/modules/users/endpoints.py",
        "GET /lost belongs to no router that a module mounts",
        append(
            f"{APP}/modules/users/endpoints.py",
            '\nother = APIRouter()\n\n\n@other.get("/lost")\nasync def lost() -> None:\n    """Be lost."""\n',
        ),
        line='@other.get("/lost")',
    ),
    "a server that CI does not start": fault(
        "server",
        ".github/workflows/ci.yml",
        "redis was chosen and is not started",
        replace(
            GITHUB,
            "{% if modules.redis.selected %}\n      redis:\n",
            "{% if modules.redis.selected and modules.postgresql.selected %}\n      redis:\n",
        ),
    ),
    "a server in CI that was not chosen": fault(
        "server",
        ".gitlab-ci.yml",
        "redis is started and was not chosen",
        replace(
            GITLAB,
            "{% if modules.redis.selected %}\n    - name: redis:8\n",
            "{% if modules.resilience.selected %}\n    - name: redis:8\n",
        ),
        line="redis:8",
    ),
    "a server in compose that was not chosen": fault(
        "server",
        "compose.yaml",
        "redis is started and was not chosen",
        replace(COMPOSE, "{% if modules.redis.selected %}\n\n  redis:\n", "{% if servers %}\n\n  redis:\n"),
        line="redis:",
    ),
    "a server that tests ask CI for in vain": fault(
        "server",
        "tests/ports/test_redis.py",
        ".github/workflows/ci.yml does not set TEST_REDIS_URL",
        replace(
            GITHUB, "      TEST_REDIS_URL: redis://127.0.0.1:6379/0\n", "      TEST_REDIS: redis://127.0.0.1:6379/0\n"
        ),
        line="TEST_REDIS_URL",
    ),
    "a broken depends_on": fault(
        "compose",
        "compose.yaml",
        "redis is not among the services",
        replace(
            COMPOSE,
            "{% if modules.redis.selected %}\n      redis:\n        condition: service_healthy\n{% endif %}\n",
            "      redis:\n        condition: service_healthy\n",
        ),
        line="redis:",
    ),
    "a network that is not defined": fault(
        "compose",
        "compose.yaml",
        "inner is not among the networks",
        replace(
            COMPOSE,
            "    networks: [backend]\n    tmpfs: [/data, /tmp]",
            "    networks: [inner]\n    tmpfs: [/data, /tmp]",
        ),
        line="networks: [inner]",
    ),
    "a volume that is not defined": fault(
        "compose",
        "compose.yaml",
        "store is not among the volumes",
        replace(COMPOSE, '    volumes: ["postgres:/var', '    volumes: ["store:/var'),
        line="store:/var",
    ),
    "a volume that nothing uses": fault(
        "compose",
        "compose.yaml",
        "nothing uses spare of the volumes",
        replace(COMPOSE, "\nvolumes:\n", "\nvolumes:\n  spare:\n"),
        line="spare:",
    ),
    "an owned path that is not there": fault(
        "ownership",
        "extensions/modules.yml",
        "/app/ports/reddis, which is not there",
        replace(MANIFEST, "/app/ports/redis,", "/app/ports/reddis,"),
        line="/app/ports/reddis",
    ),
    "a path that is owned twice": fault(
        "ownership",
        "extensions/modules.yml",
        "is owned by github and gitlab",
        replace(MANIFEST, "owns: [/.gitlab-ci.yml]", "owns: [/.gitlab-ci.yml, /.github]"),
        line="/.gitlab-ci.yml, /.github",
    ),
    "an unowned file": fault(
        "ownership",
        "app/modules/notes/service.py",
        "no module owns this",
        append("template/app/modules/notes/service.py", '"""Notes."""\n'),
    ),
    "an unowned file where the floor lies": fault(
        "ownership",
        "app/kit/queues.py",
        "nothing imports this, and it is rendered",
        append("template/app/kit/queues.py", '"""Queues."""\n'),
    ),
    "a file that outlives what needs it": fault(
        "ownership",
        "app/ports/db/pages.py",
        "nothing imports this, and it is rendered",
        replace(MANIFEST, "lists:\n  selected: false", "lists:\n  selected: true"),
    ),
    "a dead value": fault(
        "dead value",
        "copier.yml",
        "databases: mysql changes nothing",
        replace("copier.yml", '    "Redis - rate', '    "MySQL": mysql\n    "Redis - rate'),
        line="databases:",
    ),
    "a dead question": fault(
        "dead value",
        "copier.yml",
        "cache: disk changes nothing",
        append("copier.yml", "\ncache:\n  type: str\n  choices: [memory, disk]\n  default: memory\n"),
        line="cache:",
    ),
    "a rule that is too strict": fault(
        "rule",
        "copier.yml",
        "these answers make sense and are refused",
        replace(
            "copier.yml",
            "  default: \"{{ presets[preset].deploy | default(['docker']) }}\"\n",
            "  default: \"{{ presets[preset].deploy | default(['docker']) }}\"\n"
            "  validator: \"{% if 'docker' in deploy and 'redis' not in databases %}Take Redis as well.{% endif %}\"\n",
        ),
    ),
    "a preset that is not there": fault(
        "preset",
        "extensions/presets.yml",
        "saas is offered and is no preset",
        replace("copier.yml", 'no business logic": minimal\n', 'no business logic": minimal\n    "SaaS": saas\n'),
    ),
    "a preset with a value that is not offered": fault(
        "preset",
        "extensions/presets.yml",
        "minimal sets databases to what is not offered",
        replace("extensions/presets.yml", "minimal: {}", "minimal: {databases: [oracle]}"),
        line="minimal:",
    ),
    "a preset with a key that is no question": fault(
        "preset",
        "extensions/presets.yml",
        "minimal sets database, which is no question",
        replace("extensions/presets.yml", "minimal: {}", "minimal: {database: [redis]}"),
        line="minimal:",
    ),
    "a Python text that does not parse": fault(
        "syntax", "app/installed.py", "", replace(SEAM, "    postgresql,\n", "    postgresql,,\n")
    ),
    "a TOML text that does not parse": fault(
        "syntax",
        "pyproject.toml",
        "",
        replace(PROJECT, '    "redis>=7.4,<8",\n', '    "redis>=7.4,<8"\n'),
    ),
    "a YAML text that does not parse": fault(
        "syntax", "compose.yaml", "", replace(COMPOSE, "  redis:\n    <<: *hardened", "  redis:\n   <<: *hardened")
    ),
    "a line that is not formatted, in one variant": fault(
        "format",
        "app/installed.py",
        "",
        replace(SEAM, "    projects,\n", "    projects ,\n"),
        line="    projects ,",
    ),
    "a line that is too long, with two modules only": fault(
        "ruff",
        "app/ports/db/adapters.py",
        "E501",
        replace(
            f"{APP}/ports/db/adapters.py.jinja",
            "ADAPTERS = {\n",
            "{% if modules.postgresql.selected and modules.projects.selected %}\n# "
            + "x" * 130
            + "\n{% endif %}\nADAPTERS = {\n",
        ),
        line="# xxx",
    ),
    "an unsorted import, in one variant": fault(
        "ruff",
        "app/ports/db/adapters.py",
        "I001",
        replace(
            f"{APP}/ports/db/adapters.py.jinja",
            "{% if modules.postgresql.selected %}\nfrom app.ports.db.postgresql import open_postgresql\n{% endif %}\n"
            "from app.ports.db.sqlite import open_sqlite\n",
            "from app.ports.db.sqlite import open_sqlite\n"
            "{% if modules.postgresql.selected %}\nfrom app.ports.db.postgresql import open_postgresql\n{% endif %}\n",
        ),
        line="import open_sqlite",
    ),
    "a Dockerfile that is bad in one variant": fault(
        "tool",
        "Dockerfile",
        "",
        append("template/Dockerfile.jinja", "{% if modules.redis.selected %}\nRUNN redis\n{% endif %}\n"),
    ),
    "a Makefile that make does not read": fault(
        "tool",
        "Makefile",
        "",
        replace("template/Makefile.jinja", "\tdocker compose down\n", "    docker compose down\n"),
    ),
    "shell in a document that does not parse": fault(
        "tool", "README.md", "", append("template/README.md.jinja", "\n```sh\nif true; then echo\n```\n")
    ),
    "a link that leads nowhere": fault(
        "link",
        "AGENTS.md",
        "Dockerfile is not rendered",
        append("template/AGENTS.md.jinja", "See [the image](Dockerfile).\n"),
        line="[the image](Dockerfile)",
    ),
    "a stale command in the README": fault(
        "command",
        "README.md",
        "the Makefile has no up",
        append("template/README.md.jinja", "Run `make up`.\n"),
        line="Run `make up`.",
    ),
    "a stale command in a pipeline": fault(
        "command",
        ".github/workflows/ci.yml",
        "the Makefile has no typing",
        replace(GITHUB, "      - run: make types\n", "      - run: make typing\n"),
        line="make typing",
    ),
    "a command of the service that is not there": fault(
        "mention",
        "README.md",
        "there is no command app frobnicate",
        append("template/README.md.jinja", "Run `app frobnicate`.\n"),
        line="app frobnicate",
    ),
    "a file in a document that is not there": fault(
        "mention",
        "AGENTS.md",
        "app/ports/redis is not rendered",
        append("template/AGENTS.md.jinja", "Redis lies in `app/ports/redis`.\n"),
        line="`app/ports/redis`",
    ),
    "a module in a document that is not there": fault(
        "mention",
        "AGENTS.md",
        "there is no module app.kit.resilience.Guard",
        replace(
            "template/AGENTS.md.jinja",
            f"{when('resilience')}- Calls to what",
            "{% if modules.health.selected %}\n- Calls to what",
        ),
        line="app.kit.resilience.Guard",
    ),
    "a setting in a document that is not there": fault(
        "mention",
        "README.md",
        "REDIS_URL is no setting",
        append("template/README.md.jinja", "Redis is where `REDIS_URL` says.\n"),
        line="where `REDIS_URL` says",
    ),
}

# What has no counterpart in the space, and the words of the refusal, which begin with the file and the line.
UNMODELLED = {
    "Copier's own state": (
        replace(SEAM, "DISTRIBUTION =", "# {{ _copier_conf.src_path }}\nDISTRIBUTION ="),
        r"template/app/installed\.py\.jinja:\d+: _copier_conf is read",
    ),
    "an open answer in a condition": (
        append("template/README.md.jinja", "{% if project_name == 'Shop' %}\nHello.\n{% endif %}\n"),
        r"template/README\.md\.jinja:\d+: project_name decides something",
    ),
    "an open answer in a condition, under another name": (
        append("template/README.md.jinja", "{% set it = project_name | lower %}\n{{ 'Hello.' if 'shop' in it }}\n"),
        r"template/README\.md\.jinja:\d+: it decides something",
    ),
    "an open answer that selects a module": (
        replace(MANIFEST, "{{ 'redis' in databases }}", "{{ project_name == 'x' }}"),
        r"modules\.yml:\d+: Compare is no condition on closed questions",
    ),
    "chance": (
        append("template/README.md.jinja", "{{ ['a', 'b'] | shuffle | first }}\n"),
        r"template/README\.md\.jinja:\d+: the filter shuffle does not give the same",
    ),
    "the clock": (
        append("template/README.md.jinja", "{{ '%Y' | strftime }}\n"),
        r"template/README\.md\.jinja:\d+: the filter strftime does not give the same",
    ),
    "the machine": (
        append("template/README.md.jinja", "{{ '$HOME' | expandvars }}\n"),
        r"template/README\.md\.jinja:\d+: the filter expandvars does not give the same",
    ),
    "a file that anything may name": (
        append("template/README.md.jinja", "{% include project_name %}\n"),
        r"template/README\.md\.jinja:\d+: no closed answer says which file is read",
    ),
    "a need of a module that is not there": (
        replace(MANIFEST, "needs: [users, lists, soft_delete]", "needs: [nobody]"),
        r"modules\.yml: projects needs nobody, and there is no such module",
    ),
    "a manifest with statements": (
        replace(MANIFEST, "docker:\n", "{% if deploy %}\n{% endif %}\ndocker:\n"),
        r"modules\.yml:\d+: a manifest holds values only",
    ),
}
