// Written by recipectl. What the gateway decides: whose key it is, which model is meant, what an error says.
// `names`, `ambiguous`, `keys` and `engines` are preloaded objects (js_preload_object); each of their keys
// begins with `:`, so that no name is one of JavaScript's own.
import crypto from 'crypto';
import fs from 'fs';

const MARK = '/v1/';
const UNITS = '/run/systemd/units/';
const LONG = 250000, MANY = 20000;  // characters of a body, and the marks and strings of a long one
const MODEL = '"model"\\s*:\\s*"(?:[^"\\\\]|\\\\.){0,500}"', PARSED = 20000000;  // characters
const REFUSALS = {
    400: 'the request is no valid HTTP, or a header of it is too long', 403: 'this server refuses the request from this address',
    405: 'this server refuses the method', 408: 'the request came too slowly',
    414: 'the address of the request is too long', 429: 'there are too many requests; ask again later',
    497: 'this server speaks TLS; use https://',
    500: 'the gateway has a fault; its log on the host says more', 503: 'this server takes no more requests now',
};
const STEPS = 1000000, QUOTE = 34, BACKSLASH = 92;

function sha256(text) {
    return crypto.createHash('sha256').update(text).digest('hex');
}

// The name of the key that a request has, by the key's digest; empty without a valid one.
function key_name(r) {
    const bearer = /^bearer +(.*)$/i.exec(r.headersIn['Authorization'] || '');
    const given = bearer ? bearer[1] : r.headersIn['x-api-key'];
    return given ? keys[':' + sha256(given)] || '' : '';
}

// The key of the engine's own API; no engine ever sees a key of the gateway.
function engine_key(r) {
    const key = engines[':' + r.variables.gateway_recipe];
    return key ? 'Bearer ' + key : '';
}

function fail(r, status, code, message) {
    const type = status < 500 ? 'invalid_request_error' : 'server_error';
    r.headersOut['Content-Type'] = 'application/json';
    r.return(status, JSON.stringify({error: {message: message, type: type, param: null, code: code}}) + '\n');
}

function remember(r, name) {
    const route = names[':' + name];
    if (route) {
        r.variables.gateway_name = name;
        r.variables.gateway_recipe = route.recipe;
    }
    return route;
}

// False while a model does not run and systemd does not hold its port: anybody could take that, and get keys.
function is_reachable(route) {
    try {
        return route.is_held || Boolean(fs.lstatSync(UNITS + 'invocation:model-' + route.recipe + '.service'));
    } catch (e) {
        return false;
    }
}

// The `"model": "…"` of a text that has just one; null for any other.
function only_model(text) {
    const pattern = new RegExp(MODEL, 'g');
    const first = pattern.exec(text);
    return first && !pattern.exec(text) ? first[0] : null;
}

// Values take far more memory than their text, and many keys may be chosen to take long (their hashes collide).
// Marks within strings do not count.
function has_too_many(bytes) {
    const next = {'"': -1, '[': -1, '{': -1, ':': -1, ',': -1};
    let at = 0, count = 0, steps = 0;
    function find(mark) {
        const found = bytes.indexOf(mark, at);
        return found < 0 ? bytes.length : found;
    }
    while (count < MANY && steps < STEPS) {
        let first = bytes.length;
        Object.keys(next).forEach(mark => {
            next[mark] = next[mark] < at ? find(mark) : next[mark];
            first = Math.min(first, next[mark]);
        });
        if (first == bytes.length) {
            return false;
        }
        count++;
        at = first + 1;
        for (let ends = bytes[first] != QUOTE; !ends; steps++) {
            const quote = find('"');
            let before = quote;
            while (bytes[before - 1] == BACKSLASH) {
                before--;
            }
            at = quote + 1;
            ends = (quote - before) % 2 == 0 || quote == bytes.length || steps >= STEPS;
        }
    }
    return true;
}

// Requests with `model` in their body.
function by_body(r) {
    let body;
    const text = r.requestText || '';
    const is_heavy = text.length > LONG && has_too_many(r.requestBuffer);
    const model = is_heavy ? only_model(text) : null;  // wherever it stands
    if (is_heavy && !model) {
        return fail(r, 413, 'too_large', 'a body of so many values needs `model` just once');
    }
    try {
        body = JSON.parse(model ? '{' + model + '}' : text);
    } catch (e) {
        return fail(r, 400, 'model_missing', 'the body is no JSON object with `model`; send forms, sockets and '
            + 'what has no body to /NAME' + r.uri);
    }
    if (body === null || typeof body.model != 'string') {
        return fail(r, 400, 'model_missing', 'the body has no `model`; name one of /v1/models');
    }
    const route = remember(r, body.model);
    if (!route) {
        return no_such_model(r, body.model);
    }
    if (!is_reachable(route)) {
        return unreachable(r);
    }
    r.variables.gateway_to = route.to;
    if (!route.written_as) {
        return r.internalRedirect('@forward');
    }
    r.variables.gateway_body = renamed(text, body, model, route.written_as);
    r.internalRedirect('@forward_renamed');
}

// The body with another model; its other bytes stay. `written` is the model of a heavy body, which is not read.
// An object may have `"model":` within its values, too: the right one is the one that changes its model.
function renamed(text, body, written, model) {
    const other = '"model":' + JSON.stringify(model);
    if (written) {
        return text.replace(written, () => other);
    }
    const pattern = new RegExp(MODEL, 'g');
    let parsed = 0;
    for (let found = pattern.exec(text); found && parsed < PARSED; found = pattern.exec(text)) {
        parsed += text.length;
        const changed = text.slice(0, found.index) + other + text.slice(found.index + found[0].length);
        if (JSON.parse(changed).model == model) {
            return changed;
        }
    }
    body.model = model;  // its key is written in another way, as `mod\u0065l`
    return JSON.stringify(body);
}

// Where /NAME/v1/… goes: address and path. Empty for a name that leads nowhere.
function by_path(r) {
    const uri = r.variables.request_uri, at = uri.indexOf(MARK);
    const route = at > 0 && remember(r, decoded(uri.slice(1, at)));
    const climbs = /\/\.{1,2}(\/|$)/.test(decoded(uri.slice(at).split('?')[0]));
    return route && !climbs && is_reachable(route) ? route.to + uri.slice(at) : '';
}

function decoded(text) {
    try {
        return decodeURIComponent(text);
    } catch (e) {
        return '';
    }
}

function model_of(name, up) {
    const route = names[':' + name];
    const runs = up['invocation:model-' + route.recipe + '.service'];
    const state = runs ? 'up' : route.on_demand ? 'asleep' : 'down';
    return {id: name, object: 'model', created: 0, owned_by: 'recipectl', recipe: route.recipe, state: state};
}

// /v1/models, and one of it. systemd keeps a link for each unit that runs: no engine is asked, none is woken.
function models(r) {
    const up = {};
    fs.readdirSync(UNITS).forEach(file => { up[file] = true; });
    const name = decoded(r.variables.request_uri.split('?')[0].slice('/v1/models/'.length));
    if (name && !names[':' + name]) {
        return no_such_model(r, name);
    }
    const all = Object.keys(names).map(key => key.slice(1));
    const answer = name ? model_of(name, up) : {object: 'list', data: all.map(each => model_of(each, up))};
    r.headersOut['Content-Type'] = 'application/json';
    r.return(200, JSON.stringify(answer) + '\n');
}

function no_such_model(r, name) {
    const several = ambiguous[':' + name];
    if (several) {
        return fail(r, 404, 'model_not_found', '`' + name + '` is served by ' + several
            + '; ask for one of these');
    }
    const like = nearest(name);
    fail(r, 404, 'model_not_found', 'there is no model `' + name.slice(0, 100) + '`; '
        + (like ? 'did you mean `' + like + '`?' : 'see /v1/models'));
}

// The known name with the most pairs of letters in common.
function nearest(name) {
    if (name.length > 100) {
        return '';
    }
    const wanted = pairs(name);
    let best = '', most = 0.4;
    Object.keys(names).forEach(key => {
        const own = pairs(key.slice(1));
        let common = 0;
        Object.keys(wanted).forEach(pair => { common += own[pair] ? 1 : 0; });
        const likeness = 2 * common / (Object.keys(wanted).length + Object.keys(own).length);
        if (likeness > most) {
            best = key.slice(1);
            most = likeness;
        }
    });
    return best;
}

function pairs(text) {
    const found = {}, padded = ' ' + text.toLowerCase() + ' ';
    for (let index = 0; index + 1 < padded.length; index++) {
        found[padded.slice(index, index + 2)] = true;
    }
    return found;
}

// A path of no model.
function unknown(r) {
    const uri = r.variables.request_uri, at = uri.indexOf(MARK);
    if (at > 0) {
        const name = decoded(uri.slice(1, at)), route = remember(r, name);
        return route && !is_reachable(route) ? unreachable(r) : no_such_model(r, name);
    }
    fail(r, 404, 'not_found', 'there is nothing here; ask /v1/… or /NAME/v1/…');
}

// What nginx itself refuses, or the site's own lines.
function refused(r) {
    const status = Number(r.variables.status);
    const why = REFUSALS[status] || 'the server refused the request';
    fail(r, status > 493 && status < 500 ? 400 : status, 'refused', why);
}

function denied(r) {
    if (r.headersOut['WWW-Authenticate']) {  // of the site's own lines, for nginx's auth_basic
        return fail(r, 401, 'unauthorized', 'this server asks for a name and a password');
    }
    r.headersOut['WWW-Authenticate'] = 'Bearer';
    fail(r, 401, 'invalid_api_key', 'the key is missing or wrong; send `Authorization: Bearer KEY`');
}

function too_large(r) {
    fail(r, 413, 'too_large', 'the body is larger than this server takes');
}

function unreachable(r) {
    fail(r, 503, 'model_unreachable', '`' + r.variables.gateway_name + '` does not answer; '
        + 'see `recipectl status ' + r.variables.gateway_recipe + '` on its host');
}

export default {key_name, engine_key, by_body, by_path, models, unknown, denied, too_large, unreachable,
    refused};
