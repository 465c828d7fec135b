"""The admission policies that ask a writer's right to what an object names and has made, from the marks in the types.

Pure: gives the objects of `manifests/policies/rights.yaml`. Two policies, because the API server bounds what one may
cost to 28 questions about rights, and an expression to two (1.32: 10,000,000 and 1,000,000, at 350,000 for a question).

A name in an open object (a pod template) is read as text: lists of lists can't be flattened in CEL of 1.32, joined
texts can. Lines are `<field> <name>[ <address>]`. Names and addresses of objects that exist hold neither blanks nor
line ends, and what has another type than the field of core/v1 is skipped: no pod can be made of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from modelwright.api.cel import NAMES, Names
from modelwright.api.crd.definition import KINDS
from modelwright.api.names import GROUP

Json = dict[str, Any]
Path = tuple[str, ...]

ACCOUNTS = 6
OTHERS = 7
"""Different names that are asked one by one, of ServiceAccounts and of each other kind."""
POLICY_NAMES = "modelwright-names"
POLICY_MAKES = "modelwright-makes"
_RETRAINING = "retrainingpolicies"
_MALFORMED = ": apiVersion, kind and a ServiceAccount must be texts, and spec an object"
_NEVER = ("", GROUP, "rbac.authorization.k8s.io", "admissionregistration.k8s.io", "apiextensions.k8s.io")
MOST_PARTS = 1000
"""Containers, variables, volumes and their sources that are read in all pod templates of an object together: beyond it
the API server takes seconds for one request."""
_CONTAINERS = "['containers', 'initContainers', 'ephemeralContainers', 'container']"
"""Lists of containers in a pod spec; the last one stands for the container of a runtime."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A marked field: its kind's plural, its path from `spec` ("[]" after a list), and what it names."""

    plural: str
    path: Path
    names: Names

    @property
    def field(self) -> str:
        """The path as people write it, from spec."""
        return ".".join(("spec", *self.path)).replace(".[]", "[]")


@cache
def marks() -> tuple[Mark, ...]:
    """Every marked field below spec of every kind; those that name nothing too."""
    found = []
    for kind in KINDS:
        source = kind.model_fields["spec"].annotation.model_json_schema(by_alias=True, mode="validation")
        definitions = source.get("$defs", {})
        found += [Mark(kind.__crd__.plural, path, names) for path, names in _marked(source, definitions, ())]
    return tuple(found)


def _marked(node: Mapping[str, Any], definitions: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, Names]]:
    if NAMES in node:
        mark = dict(node[NAMES])
        yield path, Names(**{**mark, "beside": tuple(mark["beside"])})
    for member in node.get("anyOf", ()):
        yield from _marked(member, definitions, path)
    if "$ref" in node:
        yield from _marked(definitions[node["$ref"].rsplit("/", 1)[-1]], definitions, path)
    for name, child in node.get("properties", {}).items():
        yield from _marked(child, definitions, (*path, name))
    if "items" in node:
        yield from _marked(node["items"], definitions, (*path, "[]"))


def _distinct(found: Iterator[Mark]) -> list[Mark]:
    """Each path once: the kinds have no path in common that means another thing."""
    return list({(mark.path, mark.names): mark for mark in found}.values())


def _of(*what: str) -> list[Mark]:
    return _distinct(mark for mark in marks() if mark.names.what in what)


def policies() -> list[Json]:
    """Both policies with their bindings, in the order of applying."""
    return [
        _policy(POLICY_NAMES, _of("ServiceAccount", "Secret", "Claim", "PodTemplate", "PodSpec", "Container", "Volumes",
                                  "Manifest"), _names()),
        _binding(POLICY_NAMES),
        _policy(POLICY_MAKES, _of("PodTemplate", "PodSpec", "Container", "Manifest"), _makes()),
        _binding(POLICY_MAKES),
    ]  # fmt: skip


def _metadata(name: str) -> Json:
    return {
        "name": name,
        "labels": {"app.kubernetes.io/name": "modelwright", "app.kubernetes.io/component": "policies"},
    }


def _policy(name: str, about: list[Mark], rules: Json) -> Json:
    plurals = [kind.__crd__.plural for kind in KINDS]
    asked = {mark.plural for mark in marks()} & {
        mark.plural for mark in marks() if mark.names in {m.names for m in about}
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": _metadata(name),
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": [GROUP],
                        "apiVersions": ["*"],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": [plural for plural in plurals if plural in asked],
                        # The server's default, written out: else every kubectl apply would report a change.
                        "scope": "*",
                    }
                ]
            },
            **rules,
        },
    }


def _binding(name: str) -> Json:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": _metadata(name),
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    }


# --- Expressions ---


def _items(root: str, path: Path) -> tuple[str, str, str]:
    """(an expression that lists what is at `path`, below `root`; the name of its variable; its field as an expression).

    At most one list is on the way, of entries with a `name`. Everything above the last part is in the CRD's schema, so
    that it has the type it should have.
    """
    if "[]" not in path:
        return f"[?{root}{''.join(f'.?{part}' for part in path)}]", "x", _text(".".join(("spec", *path)))
    place = path.index("[]")
    above, below = path[:place], path[place + 1 :]
    listed = f"{root}{''.join(f'.?{part}' for part in above)}.orValue([])"
    field = f"{_text('.'.join(('spec', *above)) + '[')} + i.name + {_text(']' + ''.join(f'.{part}' for part in below))}"
    return listed, f"i{''.join(f'.?{part}' for part in below)}", field


def _text(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _pods(root: str) -> str:
    """Pod specs, and what stands for one, as {field, spec}."""
    parts = []
    for mark in _of("PodTemplate", "PodSpec", "Container", "Volumes", "Manifest"):
        tail: Path = {"PodTemplate": ("spec",), "Manifest": ("spec",)}.get(mark.names.what, ())
        listed, item, field = _items(root, (*mark.path, *tail))
        kind = "list" if mark.names.what == "Volumes" else "map"
        spec = {
            "Container": "{'container': dyn([x])}",
            "Volumes": "{'volumes': x}",
            # Of an object of another kind the ServiceAccount alone is read: the right to make it bounds the rest.
            "Manifest": "x.filter(k, k == 'serviceAccountName').size() > 0 ? dyn({'serviceAccountName': "
            "x.serviceAccountName}) : dyn({})",
        }.get(mark.names.what, "x")
        if mark.names.what in ("Container", "Volumes"):
            field = _text("spec")
        if item == "x":
            parts.append(
                f"{listed}.filter(x, type(x) == {kind}).map(x, {{'field': dyn({field}), 'spec': dyn({spec})}})"
            )
        else:
            there = f"[?{item}].exists(x, type(x) == {kind})"
            parts.append(f"{listed}.filter(i, {there}).map(i, {{'field': dyn({field}), 'spec': dyn({item}.value())}})")
    return "\n+ ".join(parts)


def _listed(of: str, key: str) -> str:
    """The list `of[key]`, empty when it is none."""
    return f"({_text(key)} in {of} && type({of}.{key}) == list ? {of}.{key} : [])"


def _parts(pods: str) -> str:
    """How many containers, variables, volumes and sources of volumes there are; of too long a list its length alone."""

    def counted(listed: str, item: str, each: str) -> str:
        long, of = f"{listed}.size() > {MOST_PARTS}", f"{listed}.filter({item}, type({item}) == map)"
        return f"({long} ? {listed}.size() : {listed}.size() + {of}.map({item}, {each}).sum())"

    containers = counted(
        "(g in p.spec && type(p.spec[g]) == list ? p.spec[g] : [])",
        "c",
        f"{_listed('c', 'env')}.size() + {_listed('c', 'envFrom')}.size()",
    )
    sources = "'projected' in v && type(v.projected) == map ? " + _listed("v.projected", "sources") + ".size() : 0"
    volumes = counted(_listed("p.spec", "volumes"), "v", sources)
    pulls = f"{_listed('p.spec', 'imagePullSecrets')}.size()"
    return f"{pods}.map(p, {_CONTAINERS}.map(g, {containers}).sum()\n+ {volumes} + {pulls}).sum()"


def _named(of: str, key: str, name: str) -> str:
    """Whether `of[key]` is an object whose `name` is a text."""
    inner = f"{of}.{key}"
    return f"{_text(key)} in {of} && type({inner}) == map && {_text(name)} in {inner} && type({inner}.{name}) == string"


def _pod_accounts(pods: str) -> str:
    return (
        f"{pods}.map(p, ['serviceAccountName', 'serviceAccount']"
        ".filter(k, k in p.spec && type(p.spec[k]) == string)"
        r".map(k, string(p.field) + '.' + k + ' ' + string(p.spec[k])).join('\n')).join('\n')"
    )


def _pod_claims(pods: str) -> str:
    return (
        f"{pods}.map(p, {_listed('p.spec', 'volumes')}"
        f".filter(v, type(v) == map && {_named('v', 'persistentVolumeClaim', 'claimName')})"
        r".map(v, string(p.field) + '.volumes ' + string(v.persistentVolumeClaim.claimName)).join('\n')).join('\n')"
    )


def _pod_secrets(pods: str) -> str:
    env = (
        f"{_listed('c', 'env')}.filter(e, type(e) == map && 'valueFrom' in e && type(e.valueFrom) == map && "
        f"{_named('e.valueFrom', 'secretKeyRef', 'name')})"
        r".map(e, string(p.field) + '.' + g + '.env ' + string(e.valueFrom.secretKeyRef.name)).join('\n')"
    )
    env_from = (
        f"{_listed('c', 'envFrom')}.filter(e, type(e) == map && {_named('e', 'secretRef', 'name')})"
        r".map(e, string(p.field) + '.' + g + '.envFrom ' + string(e.secretRef.name)).join('\n')"
    )
    containers = (
        f"{_CONTAINERS}.filter(g, g in p.spec && type(p.spec[g]) == list).map(g, p.spec[g]"
        f".filter(c, type(c) == map && ('env' in c || 'envFrom' in c)).map(c, {env}\n+ '\\n' + {env_from}).join('\\n'))"
        ".join('\\n')"
    )
    projected = (
        f"('sources' in v[k] && k == 'projected' && type(v[k].sources) == list ? v[k].sources : [])"
        f".filter(s, type(s) == map && {_named('s', 'secret', 'name')})"
        r".map(s, string(p.field) + '.volumes ' + string(s.secret.name)).join('\n')"
    )
    # Sources of all kinds name theirs in one of these ways: secret, azureFile; flexVolume, iscsi, rbd, ...; csi.
    volumes = (
        f"{_listed('p.spec', 'volumes')}.filter(v, type(v) == map).map(v, v.filter(k, type(v[k]) == map).map(k,\n"
        "['secretName'].filter(n, n in v[k] && type(v[k][n]) == string)"
        r".map(n, string(p.field) + '.volumes ' + string(v[k][n])).join('\n') + '\n'" "\n"
        "+ ['secretRef', 'nodePublishSecretRef'].filter(n, n in v[k] && type(v[k][n]) == map && 'name' in v[k][n] "
        "&& type(v[k][n].name) == string)"
        r".map(n, string(p.field) + '.volumes ' + string(v[k][n].name)).join('\n') + '\n'" "\n"
        f"+ {projected}).join('\\n')).join('\\n')"
    )  # fmt: skip
    pulls = (
        f"{_listed('p.spec', 'imagePullSecrets')}.filter(s, type(s) == map && 'name' in s && type(s.name) == string)"
        r".map(s, string(p.field) + '.imagePullSecrets ' + string(s.name)).join('\n')"
    )
    return f"{pods}.map(p, {containers}\n+ '\\n' + {volumes}\n+ '\\n' + {pulls}).join('\\n')"


def _fields(root: str, what: str) -> str:
    """Lines of the fields of the schema that name `what`; empty texts where they are absent."""
    parts = []
    for mark in _of(what):
        above, name = mark.path[:-1], mark.path[-1]
        listed, item, field = _items(root, above)
        parent = "x" if item == "x" else item
        where = f"{field} + {_text('.' + name + ' ')}"
        # The address is where the Secret goes, so another one is asked for like another Secret.
        beside = "".join(f" + ' ' + {_beside(root, mark.path, other)}" for other in mark.names.beside)
        if item != "x":
            assert len(above) - above.index("[]") == 2, mark  # noqa: S101
            listed, parent = f"{listed}.filter(i, has({_plain(item)}))", _plain(item)
            beside = beside.replace("x.?", f"{parent}.?")
        variable = "x" if item == "x" else "i"
        value = f"{parent}.{name}"
        if what == "Secret":
            has, value = f"has({value})", f"{value}.name"
        elif mark.names.pvc:
            has, value = f"{value}.startsWith('pvc://')", f"{value}.substring(6).split('/')[0]"
        else:
            has = f"has({value})"
        parts.append(f"{listed}.filter({variable}, {has}).map({variable}, {where} + string({value}){beside})")
    return "\n+ ".join(parts)


def _plain(item: str) -> str:
    return item.replace(".?", ".")


def _beside(root: str, path: Path, other: str) -> str:
    if other.startswith("../"):
        place = (*path[:-2], *other.removeprefix("../").split("/"))
        return f"string({root}{''.join(f'.?{part}' for part in place)}.orValue(''))"
    return f"string(x.?{other}.orValue(''))"


def _lines(what: str, pods: str, root: str) -> str:
    text = {"ServiceAccount": _pod_accounts, "Secret": _pod_secrets, "Claim": _pod_claims}[what](pods)
    return f"{_fields(root, what)}\n+ ({text}).split('\\n').filter(l, l.contains(' '))"


# --- Who may name what ---

_OPERATOR = (
    f"authorizer.group('{GROUP}').resource('modelrollouts').subresource('status')"
    ".namespace(request.?namespace.orValue('')).check('patch').allowed()\n"
    "&& authorizer.group('apps').resource('deployments').namespace(request.?namespace.orValue(''))"
    ".check('create').allowed()"
)
"""Who writes statuses and makes Deployments can have all of this in a pod already. Two questions."""


@dataclass(frozen=True, slots=True)
class _Question:
    what: str
    variable: str
    resource: str
    verbs: tuple[str, ...]
    """The first is asked for; another is as good for all of them."""
    most: int
    for_what: str


_QUESTIONS = (
    _Question("ServiceAccount", "account", "serviceaccounts", ("use", "impersonate"), ACCOUNTS,
              "to have pods run as the ServiceAccount"),
    _Question("Secret", "secret", "secrets", ("get",), OTHERS, "to hand the Secret"),
    _Question("Claim", "claim", "persistentvolumeclaims", ("get",), OTHERS, "to mount the PersistentVolumeClaim"),
)  # fmt: skip


def _variable(name: str, expression: str) -> Json:
    return {"name": name, "expression": expression}


def _scene() -> list[Json]:
    """Variables that both policies begin with."""
    idle = (
        f"request.resource.resource == '{_RETRAINING}' && request.operation == 'UPDATE'\n"
        "&& dyn(object).spec.run == dyn(oldObject).spec.run\n"
        "&& dyn(object).spec.modelRef == dyn(oldObject).spec.modelRef\n"
        "&& dyn(object).spec.?triggers == dyn(oldObject).spec.?triggers"
    )
    return [
        _variable("place", "request.?namespace.orValue('')"),
        # Guards, suspend and history of a RetrainingPolicy make nothing. Any other edit is asked about all of it.
        _variable("spec", f"({idle})\n? dyn({{}}) : dyn(object).spec"),
        _variable(
            "old",
            f"request.operation == 'CREATE' || request.resource.resource == '{_RETRAINING}'\n"
            "? dyn({}) : dyn(oldObject).spec",
        ),
        _variable("templates", _pods("variables.spec")),
        _variable("templatesBefore", _pods("variables.old")),
        _variable("parts", _parts("variables.templates")),
        _variable("pods", f"variables.parts > {MOST_PARTS} ? [] : variables.templates"),
        _variable(
            "podsBefore", f"{_parts('variables.templatesBefore')} > {MOST_PARTS} ? [] : variables.templatesBefore"
        ),
    ]


def _too_many_parts() -> Json:
    return {
        "expression": f"variables.parts <= {MOST_PARTS}",
        "reason": "Invalid",
        "messageExpression": "'spec: its pod templates have ' + string(variables.parts) + ' containers, variables and "
        f"volumes or more in all, where at most {MOST_PARTS} can be checked: put variables into a ConfigMap'",
    }


def _names() -> Json:
    variables, validations = _scene(), [_too_many_parts()]
    for question in _QUESTIONS:
        name, many = question.variable, f"{question.variable}s"
        others = " && l.split(' ')[1] != 'default'" if question.what == "ServiceAccount" else ""
        variables += [
            _variable(f"{many}Before", _lines(question.what, "variables.podsBefore", "variables.old")),
            _variable(f"{many}Now", _lines(question.what, "variables.pods", "variables.spec")),
            _variable(f"{many}0", f"variables.{many}Now.filter(l, !(l in variables.{many}Before){others})"),
        ]
        every = "\n|| ".join(
            f"authorizer.group('').resource('{question.resource}').namespace(variables.place).check('{verb}').allowed()"
            for verb in question.verbs
        )
        variables.append(_variable(f"every{name.capitalize()}", every))
        for number in range(1, question.most + 1):
            rest = f"variables.{many}{number - 1}"
            variables += [
                _variable(f"{name}{number}", f"{rest}.size() > 0 ? {rest}[0].split(' ')[1] : ''"),
                _variable(f"{many}{number}", f"{rest}.filter(l, l.split(' ')[1] != variables.{name}{number})"),
            ]
        free = f"variables.every{name.capitalize()}"
        last = f"variables.{many}{question.most}"
        validations.append(
            {
                "expression": f"{last}.size() == 0 || {free}",
                "reason": "Invalid",
                "messageExpression": f"{last}[0].split(' ')[0] + ': who may not {question.verbs[0]} all "
                f"{question.resource} of the namespace names at most {question.most} different ones in an object'",
            }
        )
        for number in range(1, question.most + 1):
            asked = f"variables.{name}{number}"
            validations.append(
                {
                    "expression": f"{asked} == '' || {free}\n|| authorizer.group('').resource('{question.resource}')"
                    f".namespace(variables.place).name({asked}).check('{question.verbs[0]}').allowed()",
                    "reason": "Forbidden",
                    "messageExpression": f"variables.{many}{number - 1}.filter(l, l.split(' ')[1] == {asked})"
                    f".map(l, l.split(' ')[0]).join(', ')\n+ ': {question.for_what} \"' + {asked} + "
                    f"'\"{' to pods' if question.what == 'Secret' else ''}, you (\"' + request.userInfo.username\n"
                    f'+ \'") need the verb "{question.verbs[0]}" on it\'',
                }
            )
    return {
        "matchConditions": [
            _variable("changes-the-spec", "request.operation == 'CREATE' || dyn(object).spec != dyn(oldObject).spec"),
            # Its versions name what their writers have named before.
            _variable("is-not-the-operator", f"!({_OPERATOR})"),
        ],
        "variables": variables,
        "validations": validations,
    }


# --- Who may have what made ---


def _code(pods: str) -> str:
    """What runs in a pod: {field, code}, of those that say anything of it."""
    key = "k in c && (k in ['image', 'command', 'args', 'lifecycle']\n|| (type(c[k]) == map && 'exec' in c[k]))"
    keys = "['image', 'command', 'args', 'lifecycle', 'livenessProbe', 'readinessProbe', 'startupProbe']"
    return (
        f"{pods}.map(p, {{'field': dyn(p.field), 'code': dyn({_CONTAINERS}.filter(g, g in p.spec "
        f"&& type(p.spec[g]) == list\n&& p.spec[g].exists(c, type(c) == map && {keys}.exists(k, {key})))\n"
        f".map(g, dyn({{'at': dyn(g), 'are': dyn(p.spec[g].filter(c, type(c) == map && {keys}.exists(k, {key}))\n"
        f".map(c, dyn({{'name': dyn('name' in c ? c.name : ''), 'says': dyn({keys}.filter(k, {key})\n"
        f".map(k, dyn([dyn(k), dyn(c[k])])))}})))}})))}}).filter(p, p.code.size() > 0)"
    )


def _may(group: str, resource: str) -> str:
    return f"authorizer.group({group}).resource({resource}).namespace(variables.place).check('create').allowed()"


def _you(fields: str, for_what: str, on: str) -> str:
    return f"{fields} + ': {for_what}, you (\"' + request.userInfo.username\n+ '\") need the verb \"create\" on {on}'"


def _makes() -> Json:
    stages = [mark for mark in _of("PodTemplate") if mark.plural == _RETRAINING]
    manifests = _of("Manifest")
    deployed = list(_of("PodSpec", "Container"))
    fields = ", ".join(sorted({_text(f"spec.{'.'.join(mark.path)}" if mark.names.what == "PodSpec" else "spec")
                               for mark in deployed}))  # fmt: skip
    work = "\n+ ".join(
        f"[?variables.spec{''.join(f'.?{part}' for part in mark.path[:-1])}]"
        f".map(x, {_text(mark.field.rpartition('.')[0])})"
        for mark in stages
    )
    data = "variables.spec.?triggers.orValue([]).filter(i, has(i.data)).map(i, 'spec.triggers[' + i.name + '].data')"
    malformed = "\n+ ".join(
        [
            f"[?variables.spec{''.join(f'.?{part}' for part in mark.path)}.?spec]"
            ".filter(x, !(type(x) == map && (!('serviceAccountName' in x) || type(x.serviceAccountName) == string)\n"
            "&& (!('serviceAccount' in x) || type(x.serviceAccount) == string)))\n"
            f".map(x, {_text(mark.field + '.spec: must be the spec of a pod, and its ServiceAccount a text')})"
            for mark in stages
        ]
        + [
            f"[?variables.spec{''.join(f'.?{part}' for part in mark.path)}]"
            ".filter(x, !(type(x.?apiVersion.orValue('')) == string && type(x.?kind.orValue('')) == string\n"
            "&& type(x.?spec.orValue({})) == map && (!('spec' in x) || !('serviceAccountName' in x.spec)\n"
            "|| type(x.spec.serviceAccountName) == string)))\n"
            f".map(x, {_text(mark.field + _MALFORMED)})"
            for mark in manifests
        ]
    )
    made = "\n+ ".join(
        f"[?variables.spec{''.join(f'.?{part}' for part in mark.path)}]\n"
        f".map(x, {{'field': {_text(mark.field)}, 'apiVersion': string(x.?apiVersion.orValue('')), "
        "'kind': string(x.?kind.orValue(''))})"
        for mark in manifests
    )
    retraining = "\n&& ".join((f"request.resource.resource == '{_RETRAINING}'", "has(variables.spec.run)"))
    variables = [
        *_scene(),
        _variable("codeBefore", _code("variables.podsBefore")),
        _variable(
            "code",
            _code("variables.pods") + "\n.filter(p, !(p in variables.codeBefore)).map(p, string(p.field))",
        ),
        _variable("deployed", f"variables.code.filter(f, f in [{fields}])"),
        _variable("works", work),
        _variable("data", data),
        _variable(
            "jobs",
            f"variables.works + variables.data + variables.code.filter(f, !(f in [{fields}]) "
            "&& !f.startsWith('spec.run.'))",
        ),
        _variable("malformed", malformed),
        _variable("manifests", made),
        _variable(
            "kinds",
            "variables.manifests.map(made, {'field': made.field, 'apiVersion': made.apiVersion, 'kind': made.kind,\n"
            "'group': made.apiVersion.contains('/') ? made.apiVersion.split('/')[0] : '',\n"
            "'resource': made.kind.lowerAscii() + 's'})",
        ),
        _variable("refused", f"variables.kinds.filter(made, made.group in [{', '.join(map(_text, _NEVER))}])"),
    ]
    validations: list[Json] = [
        _too_many_parts(),
        {
            "expression": "variables.malformed.size() == 0",
            "reason": "Invalid",
            "messageExpression": "variables.malformed.join('; ')",
        },
        {
            "expression": "variables.manifests.all(made, made.apiVersion != '' && made.kind != '')",
            "reason": "Invalid",
            "messageExpression": "variables.manifests.filter(made, made.apiVersion == '' || made.kind == '')\n"
            ".map(made, made.field).join(', ') + ': apiVersion and kind are needed'",
        },
        {
            "expression": "variables.refused.size() == 0",
            "reason": "Forbidden",
            "messageExpression": "variables.refused.map(made, made.field + ': ' + made.kind + ' of ' + "
            "made.apiVersion).join(', ')\n+ ' is never made for anybody: neither Secrets and other core kinds, nor "
            "rights, admission, definitions of kinds, nor the kinds of modelwright.dev'",
        },
        {
            "expression": f"!({retraining})\n|| {_may(_text(GROUP), _text('modelversions'))}",
            "reason": "Forbidden",
            "messageExpression": _you(
                "'spec.modelRef: a run registers a ModelVersion of the Model \"' + "
                "string(dyn(object).spec.modelRef.name) + '\"'",
                "",
                "modelversions.modelwright.dev",
            ).replace("': , you", "': you"),
        },
        {
            "expression": f"variables.deployed.size() == 0 || {_may(_text('apps'), _text('deployments'))}",
            "reason": "Forbidden",
            "messageExpression": _you(
                "variables.deployed.join(', ')",
                "to say which image or command runs in Deployments",
                "deployments.apps",
            ),
        },
        {
            "expression": f"variables.jobs.size() == 0 || {_may(_text('batch'), _text('jobs'))}",
            "reason": "Forbidden",
            "messageExpression": _you("variables.jobs.join(', ')", "to have Jobs made", "jobs.batch"),
        },
        {
            "expression": f"variables.data.size() == 0 || {_may(_text('batch'), _text('cronjobs'))}",
            "reason": "Forbidden",
            "messageExpression": _you("variables.data.join(', ')", "a CronJob looks at data", "cronjobs.batch").replace(
                "data, you", "data: you"
            ),
        },
    ]
    for number in range(len(manifests)):
        kind = f"variables.kinds[{number}]"
        validations.append(
            {
                "expression": f"variables.kinds.size() < {number + 1}\n|| {_may(f'{kind}.group', f'{kind}.resource')}",
                "reason": "Forbidden",
                "messageExpression": f"{kind}.field + ': to have a ' + {kind}.kind + ' made, you (\"' + "
                f"request.userInfo.username\n+ '\") need the verb \"create\" on ' + {kind}.resource + '.' + "
                f"{kind}.group",
            }
        )
    return {
        "matchConditions": [
            _variable("changes-the-spec", "request.operation == 'CREATE' || dyn(object).spec != dyn(oldObject).spec")
        ],
        "variables": variables,
        "validations": validations,
    }
