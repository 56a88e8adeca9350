// tools/trace_processor.js - asks Perfetto's trace processor about a trace, without a browser and without a network.
//
//     node tools/trace_processor.js FOLDER TRACE SQL [SQL ...]      prints each answer as lines of columns with tabs between
//
// FOLDER is an offline copy of ui.perfetto.dev: tools/perfetto.sh finds one. In it the trace processor is WebAssembly behind a web worker
// (engine_bundle.js) that takes and gives messages of perfetto/trace_processor/trace_processor.proto through a port. Here that worker runs in a context
// of its own, with the few things of a browser that it asks for. Exit status: 1 when the trace is not understood, or a query is wrong.
'use strict';
const fs = require('fs');
const path = require('path');

// ---- protocol buffers: as much as is needed ----

const varint = (value) => {
    const bytes = [];
    for (let v = BigInt(value); ; v >>= 7n) {
        if (v < 128n)
            return Buffer.from([...bytes, Number(v)]);
        bytes.push(Number(v & 127n) | 128);
    }
};
const number = (field, value) => Buffer.concat([varint(field << 3), varint(value)]);
const bytes = (field, data) => Buffer.concat([varint((field << 3) | 2), varint(data.length), data]);

const read_varint = (b, at) => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
        const byte = b[at++];
        value |= BigInt(byte & 127) << shift;
        if (byte < 128)
            return [BigInt.asIntN(64, value), at];
    }
};

// The fields of a message, in order: [number, value]; value is a BigInt or a Buffer.
function* fields(b) {
    for (let at = 0; at < b.length;) {
        let key, value;
        [key, at] = read_varint(b, at);
        const size = { 1: 8, 5: 4 }[Number(key & 7n)];
        if ((key & 7n) === 0n) {
            [value, at] = read_varint(b, at);
        } else {
            let length = size;
            if (length === undefined) {
                [length, at] = read_varint(b, at);
                length = Number(length);
            }
            value = b.subarray(at, at + length);
            at += length;
        }
        yield [Number(key >> 3n), value];
    }
}

const packed_varints = (value) => {
    const list = [];
    for (let at = 0, v; at < value.length; list.push(v))
        [v, at] = read_varint(value, at);
    return list;
};
const packed_doubles = (value) => Array.from({ length: value.length / 8 }, (_, i) => value.readDoubleLE(8 * i));

// ---- the worker ----

// Gives post(message), which sends one TraceProcessorRpc and returns the fields of the answers, once the module has started.
async function start(folder) {
    const version = fs.readdirSync(folder).find((name) => fs.existsSync(path.join(folder, name, 'engine_bundle.js')));
    if (!version)
        throw new Error(`${folder} holds no copy of Perfetto's page: there is no engine_bundle.js one level below it`);
    const base = path.join(folder, version);
    const replies = [];
    const port = { postMessage: (data) => replies.push(Buffer.from(data)) };
    const quiet = { log: () => {}, warn: () => {}, error: () => {} };
    const self = { location: { href: 'http://localhost/engine_bundle.js' } };
    class XMLHttpRequest { // it asks for its WebAssembly at once and without waiting
        open(method, url) { this.url = url; }
        send() { this.response = fs.readFileSync(path.join(base, path.basename(this.url))); }
    }
    // What tells the module that it is a web worker, in place of what would tell it that it is in node.
    const names = { self, console: quiet, WorkerGlobalScope: function () {}, location: self.location, XMLHttpRequest, process: undefined };
    Function(...Object.keys(names), fs.readFileSync(path.join(base, 'engine_bundle.js'), 'utf8'))(...Object.values(names));
    self.onmessage({ data: port });
    let sequence = 0;
    const post = (...message) => {
        replies.length = 0;
        port.onmessage({ data: bytes(1, Buffer.concat([number(1, sequence++), ...message])) });
        return replies.flatMap((reply) => [...fields(reply)]).map(([, rpc]) => [...fields(rpc)]).flat();
    };
    await new Promise((resolve) => setTimeout(resolve)); // the module sets up its side in promises that are kept already
    return post;
}

const APPEND = 1, FINALIZE = 2, QUERY = 3; // TraceProcessorMethod

function load(post, file) {
    const trace = fs.readFileSync(file), piece = 16 << 20;
    for (let at = 0; at < trace.length; at += piece) {
        const answer = post(number(2, APPEND), bytes(101, trace.subarray(at, at + piece)));
        for (const [field, value] of answer)
            if (field === 201)
                for (const [inner, text] of fields(value))
                    if (inner === 2 && text.length)
                        throw new Error(`${file}: ${text}`);
    }
    post(number(2, FINALIZE));
}

function query(post, sql) {
    const result = { columns: [], rows: [] };
    const row = [];
    for (const [field, value] of post(number(2, QUERY), bytes(103, bytes(1, Buffer.from(sql))))) {
        if (field !== 203)
            continue;
        for (const [inner, part] of fields(value)) {
            if (inner === 1)
                result.columns.push(part.toString());
            else if (inner === 2)
                throw new Error(`${sql}: ${part}`);
            else if (inner === 3)
                add_cells(result, row, part);
        }
    }
    return result;
}

function add_cells(result, row, batch) {
    const of = new Map([...fields(batch)]);
    const types = packed_varints(of.get(1) ?? Buffer.alloc(0)), integers = packed_varints(of.get(2) ?? Buffer.alloc(0));
    const doubles = packed_doubles(of.get(3) ?? Buffer.alloc(0)), strings = (of.get(5) ?? Buffer.alloc(0)).toString().split('\0');
    for (const type of types) {
        row.push(type === 2n ? integers.shift() : type === 3n ? doubles.shift() : type === 4n ? strings.shift() : null);
        if (row.length === result.columns.length)
            result.rows.push(row.splice(0));
    }
}

async function main([folder, trace, ...queries]) {
    if (!queries.length) {
        console.error('usage: node tools/trace_processor.js FOLDER TRACE SQL [SQL ...]');
        return 2;
    }
    const post = await start(folder);
    load(post, trace);
    for (const sql of queries) {
        const { columns, rows } = query(post, sql);
        console.log([columns, ...rows].map((row) => row.map((cell) => cell ?? '[NULL]').join('\t')).join('\n'));
    }
    return 0;
}

main(process.argv.slice(2)).then((status) => process.exit(status), (e) => { console.error(e.message ?? e); process.exit(1); });
