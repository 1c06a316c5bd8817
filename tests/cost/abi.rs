//! Proxy-Wasm ABI 0.2.1: the functions that the module imports. Each counts its calls and the bytes
//! that it copies.

use anyhow::Context as _;
use wasmtime::{Caller, Error, Extern, Linker, Result};

use crate::host::{Dispatch, Host};

type Call<'a> = Caller<'a, Host>;

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const BAD_ARGUMENT: u32 = 2;
const CAS_MISMATCH: u32 = 8;

/// Defines all functions.
pub(crate) fn define(linker: &mut Linker<Host>) -> anyhow::Result<()> {
    shared_data(linker)?;
    headers(linker)?;
    buffers(linker)?;
    properties(linker)?;
    metrics(linker)?;
    others(linker)?;
    Ok(())
}

fn count(call: &mut Call<'_>, name: &'static str) {
    *call.data_mut().calls.entry(name).or_default() += 1;
}

fn read(call: &mut Call<'_>, at: u32, size: u32) -> Result<Vec<u8>> {
    let memory = call.data().memory.ok_or_else(|| Error::msg("no memory"))?;
    let mut bytes = vec![0; size as usize];
    memory.read(&mut *call, at as usize, &mut bytes)?;
    call.data_mut().copied_bytes += u64::from(size);
    Ok(bytes)
}

fn write(call: &mut Call<'_>, at: u32, bytes: &[u8]) -> Result<()> {
    let memory = call.data().memory.ok_or_else(|| Error::msg("no memory"))?;
    memory.write(&mut *call, at as usize, bytes)?;
    Ok(())
}

fn write_number(call: &mut Call<'_>, at: u32, number: u32) -> Result<()> {
    write(call, at, &number.to_le_bytes())
}

/// Gives bytes to the module, in memory that it allocates itself.
fn give(call: &mut Call<'_>, bytes: &[u8], to: u32, size_to: u32) -> Result<u32> {
    let size = u32::try_from(bytes.len())?;
    let at = if bytes.is_empty() {
        0
    } else {
        let allocate = call.data().allocate.clone().ok_or_else(|| Error::msg("no allocator"))?;
        let at = allocate.call(&mut *call, size)?;
        write(call, at, bytes)?;
        let host = call.data_mut();
        host.allocations += 1;
        host.copied_bytes += u64::from(size);
        at
    };
    write_number(call, to, at)?;
    write_number(call, size_to, size)?;
    Ok(OK)
}

fn shared_data(linker: &mut Linker<Host>) -> anyhow::Result<()> {
    linker.func_wrap(
        "env",
        "proxy_get_shared_data",
        |mut call: Call<'_>, key: u32, key_size: u32, to: u32, size_to: u32, version_to: u32| {
            count(&mut call, "get_shared_data");
            let key = read(&mut call, key, key_size)?;
            let Some((value, version)) = call.data().shared_data.get(&key).cloned() else {
                return Ok(NOT_FOUND);
            };
            write_number(&mut call, version_to, version)?;
            give(&mut call, &value, to, size_to)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_shared_data",
        |mut call: Call<'_>, key: u32, key_size: u32, value: u32, size: u32, version: u32| {
            count(&mut call, "set_shared_data");
            let key = read(&mut call, key, key_size)?;
            let value = read(&mut call, value, size)?;
            let is_written = call.data_mut().set_shared_data(&key, &value, version);
            Result::Ok(if is_written { OK } else { CAS_MISMATCH })
        },
    )?;
    Ok(())
}

fn headers(linker: &mut Linker<Host>) -> anyhow::Result<()> {
    linker.func_wrap(
        "env",
        "proxy_get_header_map_pairs",
        |mut call: Call<'_>, map: u32, to: u32, size_to: u32| {
            count(&mut call, "get_header_map_pairs");
            let bytes = call.data().serialized(map);
            give(&mut call, &bytes, to, size_to)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_get_header_map_value",
        |mut call: Call<'_>, map: u32, name: u32, name_size: u32, to: u32, size_to: u32| {
            count(&mut call, "get_header_map_value");
            let name = read(&mut call, name, name_size)?;
            let headers = call.data().maps.get(&map).cloned().unwrap_or_default();
            match headers.iter().find(|(other, _)| other.as_bytes() == name) {
                Some((_, value)) => give(&mut call, value, to, size_to),
                None => Ok(NOT_FOUND),
            }
        },
    )?;
    for (name, counted, replaces) in [
        ("proxy_replace_header_map_value", "replace_header_map_value", true),
        ("proxy_add_header_map_value", "add_header_map_value", false),
    ] {
        linker.func_wrap(
            "env",
            name,
            move |mut call: Call<'_>, map: u32, name: u32, name_size: u32, at: u32, size: u32| {
                count(&mut call, counted);
                let name = read(&mut call, name, name_size)?;
                let value = read(&mut call, at, size)?;
                call.data_mut().header(map, &name, Some(&value), replaces);
                Result::Ok(OK)
            },
        )?;
    }
    linker.func_wrap(
        "env",
        "proxy_remove_header_map_value",
        |mut call: Call<'_>, map: u32, name: u32, name_size: u32| {
            count(&mut call, "remove_header_map_value");
            let name = read(&mut call, name, name_size)?;
            call.data_mut().header(map, &name, None, true);
            Result::Ok(OK)
        },
    )?;
    Ok(())
}

fn buffers(linker: &mut Linker<Host>) -> anyhow::Result<()> {
    linker.func_wrap(
        "env",
        "proxy_get_buffer_bytes",
        |mut call: Call<'_>, buffer: u32, start: u32, size: u32, to: u32, size_to: u32| {
            count(&mut call, "get_buffer_bytes");
            let Some(all) = call.data().buffers.get(&buffer) else { return Ok(NOT_FOUND) };
            let start = (start as usize).min(all.len());
            let end = start.saturating_add(size as usize).min(all.len());
            let bytes = all[start..end].to_vec();
            give(&mut call, &bytes, to, size_to)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_buffer_bytes",
        |mut call: Call<'_>, buffer: u32, start: u32, size: u32, at: u32, new_size: u32| {
            count(&mut call, "set_buffer_bytes");
            let new = read(&mut call, at, new_size)?;
            let all = call.data_mut().buffers.entry(buffer).or_default();
            let start = (start as usize).min(all.len());
            let end = start.saturating_add(size as usize).min(all.len());
            all.splice(start..end, new);
            Result::Ok(OK)
        },
    )?;
    Ok(())
}

fn properties(linker: &mut Linker<Host>) -> anyhow::Result<()> {
    linker.func_wrap(
        "env",
        "proxy_get_property",
        |mut call: Call<'_>, path: u32, path_size: u32, to: u32, size_to: u32| {
            count(&mut call, "get_property");
            let path = read(&mut call, path, path_size)?;
            match call.data().get_property(&path) {
                Some(value) => give(&mut call, &value, to, size_to),
                None => Ok(NOT_FOUND),
            }
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_property",
        |mut call: Call<'_>, path: u32, path_size: u32, at: u32, size: u32| {
            count(&mut call, "set_property");
            let path = read(&mut call, path, path_size)?;
            let value = read(&mut call, at, size)?;
            let is_set = call.data_mut().set_property(&path, &value);
            Result::Ok(if is_set { OK } else { BAD_ARGUMENT })
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_call_foreign_function",
        |mut call: Call<'_>, name: u32, name_size: u32, at: u32, size: u32, _: u32, _: u32| {
            count(&mut call, "call_foreign_function");
            let name = read(&mut call, name, name_size)?;
            let argument = read(&mut call, at, size)?;
            if name != b"declare_property" {
                return Result::Ok(NOT_FOUND);
            }
            // `DeclarePropertyArguments`: the name is field 1, which comes first.
            let declared = argument.get(1).and_then(|size| argument.get(2..2 + *size as usize));
            call.data_mut().read_only.extend(declared.map(<[u8]>::to_vec));
            Ok(OK)
        },
    )?;
    Ok(())
}

fn metrics(linker: &mut Linker<Host>) -> anyhow::Result<()> {
    linker.func_wrap(
        "env",
        "proxy_define_metric",
        |mut call: Call<'_>, _kind: u32, name: u32, name_size: u32, to: u32| {
            count(&mut call, "define_metric");
            let name = read(&mut call, name, name_size)?;
            call.data_mut().metrics.insert(name);
            let number = u32::try_from(call.data().metrics.len())?;
            write_number(&mut call, to, number)?;
            Result::Ok(OK)
        },
    )?;
    for (name, counted) in
        [("proxy_increment_metric", "increment_metric"), ("proxy_record_metric", "record_metric")]
    {
        linker.func_wrap("env", name, move |mut call: Call<'_>, _metric: u32, _by: u64| {
            count(&mut call, counted);
            OK
        })?;
    }
    Ok(())
}

fn others(linker: &mut Linker<Host>) -> anyhow::Result<()> {
    linker.func_wrap(
        "env",
        "proxy_log",
        |mut call: Call<'_>, _level: u32, at: u32, size: u32| {
            count(&mut call, "log");
            let line = read(&mut call, at, size)?;
            call.data_mut().log.push(String::from_utf8_lossy(&line).into_owned());
            Result::Ok(OK)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_get_current_time_nanoseconds",
        |mut call: Call<'_>, to: u32| {
            count(&mut call, "get_current_time");
            let now = call.data().clock_ns.to_le_bytes();
            write(&mut call, to, &now)?;
            Result::Ok(OK)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_tick_period_milliseconds",
        |mut call: Call<'_>, period_ms: u32| {
            count(&mut call, "set_tick_period");
            call.data_mut().tick_period_ns = u64::from(period_ms) * 1_000_000;
            OK
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_effective_context",
        |mut call: Call<'_>, _context: u32| {
            count(&mut call, "set_effective_context");
            OK
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_http_call",
        |mut call: Call<'_>,
         _cluster: u32,
         _cluster_size: u32,
         headers: u32,
         headers_size: u32,
         body: u32,
         body_size: u32,
         _trailers: u32,
         _trailers_size: u32,
         _timeout: u32,
         token_to: u32| {
            count(&mut call, "http_call");
            read(&mut call, headers, headers_size)?;
            let body = read(&mut call, body, body_size)?;
            let host = call.data_mut();
            host.last_token += 1;
            let token = host.last_token;
            host.dispatches.push(Dispatch { token, body });
            write_number(&mut call, token_to, token)?;
            Result::Ok(OK)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_send_local_response",
        |mut call: Call<'_>,
         status: u32,
         _details: u32,
         _details_size: u32,
         body: u32,
         body_size: u32,
         _headers: u32,
         _headers_size: u32,
         _grpc: u32| {
            count(&mut call, "send_local_response");
            let body = read(&mut call, body, body_size)?;
            let host = call.data_mut();
            host.log.push(String::from_utf8_lossy(&body).into_owned());
            host.answered = Some(status);
            Result::Ok(OK)
        },
    )?;
    Ok(())
}

/// Finds what the host needs of an instance.
pub(crate) fn memory(exported: Option<Extern>) -> anyhow::Result<wasmtime::Memory> {
    exported.and_then(Extern::into_memory).context("the module exports no memory")
}
