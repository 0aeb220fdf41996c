use super::{VERSION, write};
use crate::format::testing::{self, Recording};
use crate::profile::{Kind, Profile};
use profiler_abi::stop::StopReason;
use serde_json::{Value, json};

fn document(profile: &Profile) -> Value {
    serde_json::from_slice(&write(profile).unwrap()).unwrap()
}

fn column(table: &Value, name: &str) -> Vec<Value> {
    table[name]
        .as_array()
        .unwrap_or_else(|| panic!("no column {name}"))
        .clone()
}

/// The numbers in a column; `None` for null and -1.
fn places(table: &Value, name: &str) -> Vec<Option<usize>> {
    column(table, name)
        .iter()
        .map(|place| place.as_u64().map(|place| place as usize))
        .collect()
}

/// Every column of the tables that says where something is in another, and that other.
const REFERENCES: [(&str, &str, &str); 12] = [
    ("stackTable", "frame", "frameTable"),
    ("stackTable", "prefix", "stackTable"),
    ("frameTable", "func", "funcTable"),
    ("frameTable", "nativeSymbol", "nativeSymbols"),
    ("frameTable", "category", "categories"),
    ("funcTable", "name", "stringArray"),
    ("funcTable", "resource", "resourceTable"),
    ("funcTable", "source", "sources"),
    ("resourceTable", "name", "stringArray"),
    ("resourceTable", "lib", "libs"),
    ("nativeSymbols", "libIndex", "libs"),
    ("sources", "filename", "stringArray"),
];

/// What `RawProfileSharedData` and `RawThread` of the front end demand, version 61.
fn is_consistent(document: &Value) {
    assert_eq!(document["meta"]["preprocessedProfileVersion"], VERSION);
    let shared = &document["shared"];
    let len = |table: &str| match table {
        "stringArray" => shared[table].as_array().unwrap().len(),
        "libs" => document[table].as_array().unwrap().len(),
        "categories" => document["meta"][table].as_array().unwrap().len(),
        _ => shared[table]["length"].as_u64().unwrap() as usize,
    };
    for (name, table) in shared.as_object().unwrap().iter().filter(|(_, t)| t.is_object()) {
        for (column, values) in table.as_object().unwrap().iter().filter(|(c, _)| *c != "length") {
            assert_eq!(values.as_array().unwrap().len(), len(name), "{name}.{column}");
        }
    }
    for (table, column, into) in REFERENCES {
        for place in places(&shared[table], column).into_iter().flatten() {
            assert!(place < len(into), "{table}.{column}: {place}");
        }
    }
    for (at, prefix) in places(&shared["stackTable"], "prefix").into_iter().enumerate() {
        assert!(
            prefix.is_none_or(|prefix| prefix < at),
            "a caller stands before its callees"
        );
    }
    for thread in document["threads"].as_array().unwrap() {
        let samples = &thread["samples"];
        let n = samples["length"].as_u64().unwrap() as usize;
        for name in ["stack", "time", "weight"] {
            assert_eq!(column(samples, name).len(), n);
        }
        for stack in places(samples, "stack") {
            assert!(stack.unwrap() < len("stackTable"));
        }
        assert!(column(samples, "time").is_sorted_by_key(|time| time.as_f64().unwrap()));
    }
    let categories = document["meta"]["categories"].as_array().unwrap();
    assert!(categories.iter().any(|category| category["color"] == "grey"));
}

/// The stacks of a thread: `name@depth` of each frame, root first, and the weight.
fn stacks(document: &Value, thread: usize) -> Vec<(String, u64)> {
    let shared = &document["shared"];
    let (frames, funcs) = (&shared["frameTable"], &shared["funcTable"]);
    let samples = &document["threads"][thread]["samples"];
    let mut rows = Vec::new();
    for (leaf, weight) in places(samples, "stack")
        .into_iter()
        .zip(column(samples, "weight"))
    {
        let (mut names, mut next) = (Vec::new(), leaf);
        while let Some(at) = next {
            let frame = places(&shared["stackTable"], "frame")[at].unwrap();
            let name = places(funcs, "name")[places(frames, "func")[frame].unwrap()].unwrap();
            let depth = &frames["inlineDepth"][frame];
            names.push(format!(
                "{}@{depth}",
                shared["stringArray"][name].as_str().unwrap()
            ));
            next = places(&shared["stackTable"], "prefix")[at];
        }
        names.reverse();
        rows.push((names.join(" "), weight.as_u64().unwrap()));
    }
    rows.sort();
    rows
}

#[test]
fn tables_refer_to_each_other_within_bounds() {
    is_consistent(&document(&testing::mixed()));
}

#[test]
fn stacks_and_weights_are_those_of_the_folded_file() {
    let document = document(&testing::mixed());
    let names: Vec<_> = document["threads"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| {
            (
                t["name"].as_str().unwrap(),
                t["tid"].as_u64().unwrap(),
                t["pid"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        names,
        [
            ("server", 4711, "4711"),
            ("server", 4713, "4711"),
            ("server", 4712, "4711"),
            ("kworker/0:1", 9, "9")
        ]
    );
    let c = "runtime.main@0 main.main@0 main.handle@0 runtime.cgocall@0 runtime.asmcgocall@0 compress@0 deflate@0";
    assert_eq!(
        stacks(&document, 0),
        [
            ("[incomplete: no-rule]@0 [libz.so.1+0x1f30]@0".to_owned(), 3),
            (c.to_owned(), 10),
            (format!("{c} asm_exc_page_fault@0 handle_mm_fault@0"), 4),
            (
                "runtime.main@0 main.main@0 main.handle@0 strings.Index@0 internal/bytealg.IndexByteString@1"
                    .to_owned(),
                60
            ),
        ]
    );
    assert_eq!(stacks(&document, 2), [("[no stack: no-mapping]@0".to_owned(), 1)]);
}

#[test]
fn rows_of_a_thread_follow_each_other_by_their_cpu_time() {
    let mut profile = testing::mixed();
    profile.meta.frequency_hz = 100;
    let document = document(&profile);
    let samples = &document["threads"][0]["samples"];
    let (mut end, times) = (0.0, column(samples, "time"));
    for (time, weight) in times.iter().zip(column(samples, "weight")) {
        assert_eq!(time.as_f64().unwrap(), end);
        end += 10.0 * weight.as_f64().unwrap();
    }
    assert_eq!((end, samples["weightType"].as_str()), (770.0, Some("samples")));
    assert_eq!(document["meta"]["interval"], 10.0);
    assert_eq!(document["meta"]["initialSelectedThreads"], json!([0]));
}

#[test]
fn a_frame_has_its_kind_its_place_and_its_object() {
    let document = document(&testing::mixed());
    let shared = &document["shared"];
    let string = |at: &Value| shared["stringArray"][at.as_u64().unwrap() as usize].clone();
    let of = |name: &str| {
        let (frames, funcs) = (&shared["frameTable"], &shared["funcTable"]);
        let frame = (0..frames["length"].as_u64().unwrap() as usize)
            .find(|&at| string(&funcs["name"][frames["func"][at].as_u64().unwrap() as usize]) == name)
            .unwrap();
        let func = frames["func"][frame].as_u64().unwrap() as usize;
        let category = frames["category"][frame].as_u64().unwrap() as usize;
        let resource = funcs["resource"][func]
            .as_u64()
            .map(|at| string(&shared["resourceTable"]["name"][at as usize]));
        let source = funcs["source"][func]
            .as_u64()
            .map(|at| string(&shared["sources"]["filename"][at as usize]));
        json!([
            document["meta"]["categories"][category]["name"],
            frames["line"][frame],
            funcs["lineNumber"][func],
            source,
            resource,
        ])
    };
    assert_eq!(of("main.handle"), json!(["Go", 40, 37, "/src/main.go", "server"]));
    assert_eq!(of("deflate"), json!(["C/C++", null, null, null, "libz.so.1"]));
    assert_eq!(
        of("handle_mm_fault"),
        json!(["kernel", null, null, null, "[kernel]"])
    );
    assert_eq!(
        of("[libz.so.1+0x1f30]"),
        json!(["unknown", null, null, null, "libz.so.1"])
    );
    assert_eq!(
        of("[incomplete: no-rule]"),
        json!(["incomplete", null, null, null, null])
    );
}

#[test]
fn an_inlined_function_has_address_and_symbol_of_the_one_around_it() {
    let mut r = Recording::new();
    let object = r.module("/bin/x", 0x40_0000);
    let outer = r.frame_in("outer", Kind::Native, false, Some(object), None);
    let inner = r.frame_in("inner", Kind::Native, true, Some(object), None);
    let innermost = r.frame_in("innermost", Kind::Native, true, Some(object), None);
    r.sample(
        (1, 1, "x"),
        &[outer, inner, innermost],
        StopReason::Root,
        false,
        1,
    );
    let document = document(&r.finish());
    is_consistent(&document);
    let frames = &document["shared"]["frameTable"];
    assert_eq!(frames["inlineDepth"], json!([0, 1, 2]));
    assert_eq!(frames["nativeSymbol"], json!([0, 0, 0]));
    assert_eq!(frames["address"], json!([0x2010, 0x2010, 0x2010]));
    assert_eq!(document["shared"]["nativeSymbols"]["address"], json!([0x2010]));
    assert_eq!(document["libs"][0]["path"], "/bin/x");
}

#[test]
fn what_the_front_end_cannot_hold_is_left_out() {
    let mut r = Recording::new();
    let far = r.module("/bin/far", 0);
    let unnamed = r.module("", 0x40_0000);
    let mut frames = vec![r.frame_in("f", Kind::Native, true, Some(unnamed), None)];
    let mut frame = testing::mixed().frames[0].clone();
    frame.address = u64::MAX;
    frame.module = Some(far);
    frames.push(r.any_frame(frame));
    r.sample(
        (1, 1, "\u{1b}[2J"),
        &frames,
        StopReason::Root,
        false,
        u64::MAX / 2,
    );
    let document = document(&r.finish());
    is_consistent(&document);
    assert_eq!(document["shared"]["frameTable"]["address"][1], -1);
    assert_eq!(document["threads"][0]["name"], r"\u{1b}[2J");
}
