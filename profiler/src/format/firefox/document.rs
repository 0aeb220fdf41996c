//! The document, field by field as `src/types/profile.ts` of the front end has it in version 61. Tables are
//! columns; a number in one of them is a place in another.

use serde::Serialize;

/// `Profile`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    pub(super) meta: Meta,
    pub(super) libs: Vec<Lib>,
    pub(super) shared: Shared,
    pub(super) threads: Vec<Thread>,
    pub(super) pages: [(); 0],
    pub(super) counters: [(); 0],
    pub(super) profiler_overhead: [(); 0],
}

/// `ProfileMeta`. Times are in milliseconds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Meta {
    pub(super) interval: f64,
    pub(super) start_time: f64,
    pub(super) product: String,
    pub(super) process_type: u32,
    pub(super) stackwalk: u32,
    pub(super) debug: bool,
    /// That of the format which Firefox itself writes; it does not matter in ours.
    pub(super) version: u32,
    pub(super) preprocessed_profile_version: u32,
    pub(super) symbolicated: bool,
    pub(super) imported_from: &'static str,
    pub(super) platform: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) oscpu: Option<String>,
    #[serde(rename = "CPUName", skip_serializing_if = "Option::is_none")]
    pub(super) cpu_name: Option<String>,
    pub(super) categories: Vec<Category>,
    pub(super) marker_schema: [(); 0],
    pub(super) uses_only_one_stack_type: bool,
    pub(super) source_code_is_not_on_searchfox: bool,
    pub(super) initial_selected_threads: [usize; 1],
    pub(super) extra: Vec<Section>,
}

/// `Category`.
#[derive(Serialize)]
pub(super) struct Category {
    pub(super) name: &'static str,
    pub(super) color: &'static str,
    pub(super) subcategories: [&'static str; 1],
}

/// `ExtraProfileInfoSection`.
#[derive(Serialize)]
pub(super) struct Section {
    pub(super) label: &'static str,
    pub(super) entries: Vec<Entry>,
}

/// A line of a section.
#[derive(Serialize)]
pub(super) struct Entry {
    label: String,
    format: &'static str,
    value: String,
}

impl Entry {
    pub(super) fn new(label: &str, value: String) -> Self {
        Self {
            label: label.to_owned(),
            format: "string",
            value,
        }
    }
}

/// `Lib`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Lib {
    pub(super) arch: &'static str,
    pub(super) name: String,
    pub(super) path: String,
    pub(super) debug_name: String,
    pub(super) debug_path: String,
    pub(super) breakpad_id: String,
    pub(super) code_id: Option<String>,
}

/// `RawProfileSharedData`.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shared {
    pub(super) stack_table: StackTable,
    pub(super) frame_table: FrameTable,
    pub(super) func_table: FuncTable,
    pub(super) resource_table: ResourceTable,
    pub(super) native_symbols: NativeSymbols,
    pub(super) string_array: Vec<String>,
    pub(super) sources: Sources,
}

/// `RawStackTable`.
#[derive(Default, Serialize)]
pub(super) struct StackTable {
    pub(super) length: usize,
    pub(super) frame: Vec<u32>,
    pub(super) prefix: Vec<Option<u32>>,
}

/// `RawFrameTable`. Addresses are relative to the library, -1 if there is none.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FrameTable {
    pub(super) length: usize,
    pub(super) address: Vec<i64>,
    pub(super) inline_depth: Vec<u32>,
    pub(super) category: Vec<usize>,
    pub(super) subcategory: Vec<u32>,
    pub(super) func: Vec<u32>,
    pub(super) native_symbol: Vec<Option<u32>>,
    #[serde(rename = "innerWindowID")]
    pub(super) inner_window_id: Vec<u32>,
    pub(super) line: Vec<Option<u32>>,
    pub(super) column: Vec<Option<u32>>,
}

/// `FuncTable`. -1 is no resource.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FuncTable {
    pub(super) length: usize,
    pub(super) name: Vec<u32>,
    #[serde(rename = "isJS")]
    pub(super) is_js: Vec<bool>,
    #[serde(rename = "relevantForJS")]
    pub(super) relevant_for_js: Vec<bool>,
    pub(super) resource: Vec<i64>,
    pub(super) source: Vec<Option<u32>>,
    pub(super) line_number: Vec<Option<u32>>,
    pub(super) column_number: Vec<Option<u32>>,
}

/// `ResourceTable`: one for each library.
#[derive(Default, Serialize)]
pub(super) struct ResourceTable {
    pub(super) length: usize,
    pub(super) lib: Vec<usize>,
    pub(super) name: Vec<u32>,
    pub(super) host: Vec<Option<u32>>,
    pub(super) r#type: Vec<u32>,
}

/// `NativeSymbolTable`.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NativeSymbols {
    pub(super) length: usize,
    pub(super) lib_index: Vec<usize>,
    pub(super) address: Vec<i64>,
    pub(super) name: Vec<u32>,
    pub(super) function_size: Vec<Option<u64>>,
}

/// `SourceTable`. Lines and columns are those where the source starts in its file, always 1.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sources {
    pub(super) length: usize,
    pub(super) id: Vec<Option<String>>,
    pub(super) filename: Vec<u32>,
    pub(super) start_line: Vec<u32>,
    pub(super) start_column: Vec<u32>,
    #[serde(rename = "sourceMapURL")]
    pub(super) source_map_url: Vec<Option<u32>>,
}

/// `RawThread`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Thread {
    pub(super) process_type: &'static str,
    pub(super) process_startup_time: f64,
    pub(super) process_shutdown_time: Option<f64>,
    pub(super) register_time: f64,
    pub(super) unregister_time: Option<f64>,
    pub(super) paused_ranges: [(); 0],
    pub(super) name: String,
    pub(super) is_main_thread: bool,
    pub(super) process_name: String,
    pub(super) pid: String,
    pub(super) tid: u32,
    pub(super) samples: Samples,
    pub(super) markers: Markers,
}

/// `RawSamplesTable`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Samples {
    pub(super) length: usize,
    pub(super) stack: Vec<u32>,
    pub(super) time: Vec<f64>,
    pub(super) weight: Vec<u64>,
    pub(super) weight_type: &'static str,
}

/// `RawMarkerTable`: there are none.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Markers {
    length: usize,
    data: [(); 0],
    name: [(); 0],
    start_time: [(); 0],
    end_time: [(); 0],
    phase: [(); 0],
    category: [(); 0],
}
