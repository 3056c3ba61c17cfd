//! libibverbs, opened when it is wanted: a program that could use RDMA also starts where there is none.
//!
//! rdma-sys declares the functions to be linked; here only its types are used, and the functions are looked
//! up in the library. What verbs defines as inline functions goes through the device's own table.

use rdma_sys::*;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

macro_rules! library {
    ($($field:ident = $symbol:literal: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions that are used.
        pub struct Library {
            $(pub $field: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        /// # Safety
        /// `handle` must be that of libibverbs.
        unsafe fn load(handle: *mut c_void) -> Result<Library, String> {
            Ok(Library {
                $($field: {
                    // SAFETY: an open library; the name is a C string.
                    let found = unsafe { libc::dlsym(handle, $symbol.as_ptr()) };
                    if found.is_null() {
                        return Err(format!("libibverbs.so.1 has no {:?}; install a newer one", $symbol));
                    }
                    // SAFETY: libibverbs's function of this name has this type (infiniband/verbs.h).
                    unsafe {
                        std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) $(-> $result)?>(found)
                    }
                },)*
            })
        }
    };
}

library! {
    get_device_list = c"ibv_get_device_list": fn(*mut c_int) -> *mut *mut ibv_device;
    free_device_list = c"ibv_free_device_list": fn(*mut *mut ibv_device);
    get_device_name = c"ibv_get_device_name": fn(*mut ibv_device) -> *const c_char;
    open_device = c"ibv_open_device": fn(*mut ibv_device) -> *mut ibv_context;
    close_device = c"ibv_close_device": fn(*mut ibv_context) -> c_int;
    query_device = c"ibv_query_device": fn(*mut ibv_context, *mut ibv_device_attr) -> c_int;
    query_port = c"ibv_query_port": fn(*mut ibv_context, u8, *mut c_void) -> c_int;
    query_gid = c"ibv_query_gid": fn(*mut ibv_context, u8, c_int, *mut ibv_gid) -> c_int;
    get_async_event = c"ibv_get_async_event": fn(*mut ibv_context, *mut ibv_async_event) -> c_int;
    ack_async_event = c"ibv_ack_async_event": fn(*mut ibv_async_event);
    event_type_str = c"ibv_event_type_str": fn(c_uint) -> *const c_char;
    alloc_pd = c"ibv_alloc_pd": fn(*mut ibv_context) -> *mut ibv_pd;
    dealloc_pd = c"ibv_dealloc_pd": fn(*mut ibv_pd) -> c_int;
    reg_mr = c"ibv_reg_mr": fn(*mut ibv_pd, *mut c_void, usize, c_int) -> *mut ibv_mr;
    dereg_mr = c"ibv_dereg_mr": fn(*mut ibv_mr) -> c_int;
    create_comp_channel = c"ibv_create_comp_channel": fn(*mut ibv_context) -> *mut ibv_comp_channel;
    destroy_comp_channel = c"ibv_destroy_comp_channel": fn(*mut ibv_comp_channel) -> c_int;
    create_cq = c"ibv_create_cq":
        fn(*mut ibv_context, c_int, *mut c_void, *mut ibv_comp_channel, c_int) -> *mut ibv_cq;
    destroy_cq = c"ibv_destroy_cq": fn(*mut ibv_cq) -> c_int;
    get_cq_event = c"ibv_get_cq_event": fn(*mut ibv_comp_channel, *mut *mut ibv_cq, *mut *mut c_void) -> c_int;
    ack_cq_events = c"ibv_ack_cq_events": fn(*mut ibv_cq, c_uint);
    wc_status_str = c"ibv_wc_status_str": fn(ibv_wc_status::Type) -> *const c_char;
    create_qp = c"ibv_create_qp": fn(*mut ibv_pd, *mut ibv_qp_init_attr) -> *mut ibv_qp;
    destroy_qp = c"ibv_destroy_qp": fn(*mut ibv_qp) -> c_int;
    modify_qp = c"ibv_modify_qp": fn(*mut ibv_qp, *mut ibv_qp_attr, c_int) -> c_int;
}

impl Library {
    /// The library.
    ///
    /// # Errors
    /// A sentence, if it is not there.
    pub fn get() -> Result<&'static Self, String> {
        static LIBRARY: OnceLock<Result<Library, String>> = OnceLock::new();
        LIBRARY.get_or_init(Self::open).as_ref().map_err(String::clone)
    }

    fn open() -> Result<Self, String> {
        // SAFETY: the name is a C string; the library's constructors are harmless. It is never closed.
        let handle = unsafe { libc::dlopen(c"libibverbs.so.1".as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            // SAFETY: after a failure a C string, or null.
            let why = unsafe {
                let why = libc::dlerror();
                if why.is_null() { "unknown".into() } else { CStr::from_ptr(why).to_string_lossy() }
            };
            return Err(format!(
                "the RDMA library is missing ({why}); install libibverbs1 and ibverbs-providers"
            ));
        }
        // SAFETY: the handle of libibverbs.
        unsafe { load(handle) }
    }
}
