// Written by recipectl. What the gateway decides: whose key it is, which model is meant, what an error says.
// `names`, `ambiguous`, `keys` and `engines` are preloaded objects (js_preload_object); each of their keys
// begins with `:`, so that no name is one of JavaScript's own.
import crypto from 'crypto';
import fs from 'fs';

const MARK = '/v1/';
const MODEL = Buffer.from('"model"');
const UNITS = '/run/systemd/units/';
const QUOTE = 34, BACKSLASH = 92, COLON = 58, COMMA = 44, OPENS = [0x7b, 0x5b], CLOSES = [0x7d, 0x5d];
const STEPS = 1000000;  // of a search through a body: about half a second
const ESCAPED = 32;  // the most characters that `"model"` has

function sha256(text) {
    return crypto.createHash('sha256').update(text).digest('hex');
}

// The name of the key that a request has, by the key's digest; empty without a valid one.
function key_name(r) {
    const bearer = /^bearer +(.*)$/i.exec(r.headersIn['Authorization'] || '');
    const given = [bearer ? bearer[1] : '', r.headersIn['x-api-key'] || ''];
    return given.map(key => key ? keys[':' + sha256(key)] : '').find(name => name) || '';
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

// False while nothing of a model listens at its address: anybody could take its port, and get keys.
function is_reachable(route) {
    if (!route.shown_by) {
        return true;
    }
    try {
        fs.lstatSync(UNITS + 'invocation:' + route.shown_by);
    } catch (e) {
        return false;
    }
    try {
        return fs.readFileSync(UNITS + 'log-extra-fields:' + route.shown_by).includes(route.listens_at);
    } catch (e) {
        return true;  // a unit that an earlier release started does not tell its address
    }
}

// The end of the string that begins at a quote, behind its last quote; that of the bytes where it has none.
function string_end(bytes, begin, budget) {
    for (let at = bytes.indexOf('"', begin + 1); at >= 0 && budget.steps > 0; at = bytes.indexOf('"', at + 1)) {
        let before = at;
        for (budget.steps--; bytes[before - 1] == BACKSLASH && budget.steps > 0; budget.steps--) {
            before--;
        }
        if ((at - before) % 2 == 0) {
            return at + 1;
        }
    }
    return bytes.length;
}

// Whether a key of JSON is `model`, also where it is written as `mod\u0065l`. A text is made of few keys: each
// takes memory for as long as the request lives.
function is_model(bytes, begin, end, budget) {
    if (end - begin > ESCAPED) {
        return false;
    }
    let is_plain = end - begin == MODEL.length;
    budget.steps -= end - begin;
    for (let at = begin; at < end; at++) {
        if (bytes[at] == BACKSLASH) {
            budget.steps -= STEPS / 100;
            return string_of(bytes, [begin, end]) == 'model';
        }
        is_plain = is_plain && bytes[at] == MODEL[at - begin];
    }
    return is_plain;
}

function string_of(bytes, place) {
    try {
        return JSON.parse(bytes.slice(place[0], place[1]).toString());
    } catch (e) {
        return null;
    }
}

// Begin and end of the value of the body's own `model`, the last one, as parsers take it; null without one. The
// whole body is not parsed: njs refuses what is nested deeper than 31 levels, and values take far more memory
// than their text.
function place_of_model(bytes, budget) {
    let depth = 0, place = null, of_model = false, is_value = false;
    for (let at = 0; at < bytes.length && budget.steps > 0; at++, budget.steps--) {
        const byte = bytes[at];
        if (byte == QUOTE) {
            const end = string_end(bytes, at, budget);
            if (depth == 1 && !is_value) {
                of_model = is_model(bytes, at, end, budget);
            } else if (depth == 1 && of_model) {
                place = [at, end];
            }
            at = end - 1;
        } else if (OPENS.includes(byte)) {
            depth++;
        } else if (CLOSES.includes(byte)) {
            depth--;
        } else if (depth == 1 && byte == COLON) {
            is_value = true;
            place = of_model ? null : place;
        } else if (depth == 1 && byte == COMMA) {
            is_value = false;
        }
    }
    return place;
}

// The same for a body of too many steps, where `"model": "…"` stands just once.
function only_place(bytes) {
    const at = bytes.indexOf('"model"');
    if (at < 0 || bytes.indexOf('"model"', at + 1) >= 0) {
        return null;
    }
    const before = /^"model"\s*:\s*(?=")/.exec(bytes.slice(at, at + 100).toString());
    return before && [at + before[0].length, string_end(bytes, at + before[0].length, {steps: 1000})];
}

// The body, null where nginx has written it to a file: many small chunks take more room than their bytes.
function body_of(r) {
    try {
        return r.requestBuffer;
    } catch (e) {
        return null;
    }
}

// Requests with `model` in their body.
function by_body(r) {
    const bytes = body_of(r), budget = {steps: STEPS};
    if (bytes === null) {
        return fail(r, 413, 'too_large', 'the body is larger than this server takes in chunks; send its length');
    }
    // njs 0.7.9 cannot slice an empty buffer.
    if (!bytes || !bytes.length || !/^\ufeff?\s*\{/.test(bytes.slice(0, 100).toString())) {
        return fail(r, 400, 'model_missing', 'the body is no JSON object with `model`; send forms, sockets and '
            + 'what has no body to /NAME' + r.uri);
    }
    let place = place_of_model(bytes, budget);
    if (budget.steps <= 0) {
        place = only_place(bytes);
        if (!place) {
            return fail(r, 413, 'too_large', 'a body of so many values needs `model` just once');
        }
    }
    const model = place && string_of(bytes, place);
    if (typeof model != 'string') {
        return fail(r, 400, 'model_missing', 'the body has no `model`; name one of /v1/models');
    }
    const route = remember(r, model);
    if (!route) {
        return no_such_model(r, model);
    }
    if (climbs(r.variables.request_uri)) {
        return fail(r, 404, 'not_found', 'there is nothing here; ask /v1/… or /NAME/v1/…');
    }
    if (!is_reachable(route)) {
        return unreachable(r);
    }
    r.variables.gateway_to = route.to;
    if (!route.written_as) {
        return r.internalRedirect('@forward');
    }
    const name = Buffer.from(JSON.stringify(route.written_as));
    r.rawVariables.gateway_body = Buffer.concat([bytes.slice(0, place[0]), name, bytes.slice(place[1])]);
    r.internalRedirect('@forward_renamed');
}

// Whether a path has `..`, or cannot be read: an engine might read it in another way.
function climbs(path) {
    const text = decoded(path.split('?')[0]);
    return !text || /\/\.{1,2}(\/|$)/.test(text);
}

// Where /NAME/v1/… goes: address and path. Empty for a name that leads nowhere.
function by_path(r) {
    const uri = r.variables.request_uri, at = uri.indexOf(MARK);
    const route = at > 0 && remember(r, decoded(uri.slice(1, at)));
    return route && !climbs(uri.slice(at)) && is_reachable(route) ? route.to + uri.slice(at) : '';
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
    const state = !is_reachable(route) ? 'down' : runs ? 'up' : route.on_demand ? 'asleep' : 'down';
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
    if (at > 0 && !climbs(uri.slice(at))) {
        const name = decoded(uri.slice(1, at)), route = remember(r, name);
        return route ? unreachable(r) : no_such_model(r, name);
    }
    fail(r, 404, 'not_found', 'there is nothing here; ask /v1/… or /NAME/v1/…');
}

function unreachable(r) {
    fail(r, 503, 'model_unreachable', '`' + r.variables.gateway_name + '` does not answer; '
        + 'see `recipectl status ' + r.variables.gateway_recipe + '` on its host');
}

// What is no final answer of HTTP ends the connection: nginx 1.22 passes on what follows a 1xx as it comes, and an
// engine could put an answer to the client's next request there, which may be for another model.
function require_final(r) {
    const is_socket = r.status == 101 && r.variables.gateway_upgrade;
    if (r.httpVersion == '0.9' || (r.status < 200 && !is_socket)) {
        throw new Error('the engine of ' + r.variables.gateway_recipe + ' gave no final answer');
    }
}

export default {key_name, engine_key, by_body, by_path, models, unknown, unreachable, require_final};
